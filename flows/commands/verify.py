"""What `dynaprop verify` does: check the cached features of both branches and the results, recompute what is wrong."""

import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dynaprop.flows.commands.verify_runs import check_runs, repair_runs
from dynaprop.flows.terminal.printing import answer
from dynaprop.flows.terminal.progress import TERMINAL, say, steps
from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.deep_check import DeepCheck, SampledVideos, compare_features, sample_videos, sort_out
from dynaprop.pipeline.extract.of_workspace import open_extraction
from dynaprop.pipeline.extract.plan import shards_to_do
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.progress import reading_again
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.names import cached_key, locate_backbone, open_store, store_path
from dynaprop.pipeline.store.repair import find_strays, remove_damaged_metadata, remove_strays
from dynaprop.pipeline.store.verify import verify_key
from dynaprop.pipeline.video.identity import FileIdentity
from dynaprop.pipeline.workspace import Workspace

_SEEDS = 2**32
_SHOWN = 20  # problems


@dataclass
class Findings:
    """All that is wrong with a store."""

    problems: list[str] = field(default_factory=list)
    bad: dict[str, set[int]] = field(default_factory=dict)
    """Shards that have to be written anew, by feature key."""
    suspects: dict[str, bool] = field(default_factory=dict)
    """Ids of the videos that the deep check objects to; True: they have to be probed again."""
    learnt: dict[str, FileIdentity] = field(default_factory=dict)
    """What the deep check has found out about files of which an earlier version noted less."""


@dataclass(frozen=True)
class DeepOptions:
    """How a deep check is done."""

    sample: int = 16
    seed: int | None = None
    """Of the choice of videos; a random one by default."""
    device: str = "auto"
    workers: int | None = None


def verify_features(workspace: Workspace, *, deep: DeepOptions | None = None) -> None:
    """Check all published shards and the results of all runs; only what a deep check has learnt of files is written.

    Args:
        workspace: dataset and recipe.
        deep: extract some videos once more, too.

    Raises:
        DynapropError: something is wrong; each problem has been printed.
    """
    _require_store(workspace)
    store = open_store(workspace.dataset, workspace.home, read_only=True)
    findings = _check(workspace, store, deep)
    if findings.learnt:
        try:
            with open_extraction(workspace, device="cpu") as extraction:
                _learn(extraction, findings)
        except DynapropError as error:
            answer(f"what was learnt of {len(findings.learnt)} files could not be noted: {as_shown(error)}")
    if old := store.manifest().outdated():
        answer(
            f"{old:,} videos were cached by an earlier version; `dynaprop extract {workspace.quoted}` finds out which "
            "of them it read otherwise, and extracts those again"
        )
    if strays := find_strays(store.root):
        answer(
            f"{len(strays)} temporary files, left by a process that was killed or being written by one that runs; "
            "--repair deletes them"
        )
    findings.problems += check_runs(workspace)
    if findings.problems:
        raise DynapropError(
            f"{store.root}: {len(findings.problems)} problems; run dynaprop verify {workspace.quoted} --repair"
        )


def repair_features(
    workspace: Workspace,
    *,
    deep: DeepOptions | None = None,
    wait: bool = False,
    device: str = "auto",
    workers: int | None = None,
) -> None:
    """Check as ``verify_features`` does, recompute what is wrong, and check that again; holds the store's lock.

    Args:
        workspace: dataset and recipe.
        deep: extract some videos once more, too.
        wait: wait while another process extracts this dataset, instead of refusing.
        device, workers: of the extraction, see ``Extraction``.

    Raises:
        DynapropError: something is still wrong, or the store is in use.
    """
    root = _require_store(workspace)
    with open_extraction(workspace, device=device, workers=workers, wait=wait) as extraction:
        for path in remove_damaged_metadata(root):
            answer(f"{str(path).removeprefix(f'{root}/')} was damaged and is written anew")
        for key in extraction.restore_arrays():
            answer(f"the array {key} is described anew")
        if strays := remove_strays(root):
            answer(f"{len(strays)} temporary files deleted")
        findings = _check(workspace, extraction.store, deep)
        if findings.learnt:
            _learn(extraction, findings)
        if findings.problems:
            shards = _recompute(extraction, findings)
            left = _check(workspace, extraction.store, deep, shards=shards, suspects=list(findings.suspects))
            if left.problems:
                raise DynapropError(f"{root}: {len(left.problems)} problems are left after the repair")
    damaged = check_runs(workspace)
    if damaged:
        repair_runs(workspace, device=device)
    if damaged or findings.problems:
        answer("repair: what was wrong is right now")


def _require_store(workspace: Workspace) -> StoragePath:
    root = store_path(workspace.dataset, workspace.home)
    if not root.exists():
        raise DynapropError(f"{workspace.target} has no features yet; run: dynaprop extract {workspace.quoted}")
    return root


def _check(
    workspace: Workspace,
    store: FeatureStore,
    deep: DeepOptions | None,
    *,
    shards: set[int] | None = None,
    suspects: Sequence[str] | None = None,
) -> Findings:
    """Check and print; after a repair only some shards and suspects."""
    findings = Findings()
    keys = {
        backbone.name: cached_key(backbone, store) or locate_backbone(backbone)[0].name
        for backbone in (workspace.student, workspace.teacher)
    }
    published = {key: store.ledger(key).published() for key in keys.values()}
    total = sum(len(numbers if shards is None else numbers & shards) for numbers in published.values())
    with steps("verify", total, "shards") as progress:
        checks = {name: verify_key(store, key, shards=shards, on_shard=progress.advance) for name, key in keys.items()}
    for name, check in checks.items():
        answer(
            f"{name}: {check.videos} videos in {check.shards} shards, "
            f"{check.unpublished} shards not extracted, {len(check.problems)} problems"
        )
        _list(check.problems)
        findings.problems += check.problems
        if check.bad_shards:
            findings.bad[keys[name]] = set(check.bad_shards)
    if deep and (suspects is None or suspects):
        _check_deeply(workspace, store, list(keys.values()), deep, suspects, findings)
    return findings


def _check_deeply(
    workspace: Workspace,
    store: FeatureStore,
    keys: list[str],
    deep: DeepOptions,
    suspects: Sequence[str] | None,
    findings: Findings,
) -> None:
    seed = secrets.randbelow(_SEEDS) if deep.seed is None else deep.seed
    bad = set().union(*findings.bad.values())  # their features are known to be wrong
    ids = sample_videos(store, keys, count=deep.sample, seed=seed, bad_shards=bad) if suspects is None else suspects
    sample = sort_out(ids, store=store, annotations=workspace.annotations(), root=workspace.dataset.root)
    check = _extract_again(workspace, store, keys, deep, sample)
    again = f"sample of {len(ids)} videos, seed {seed}" if suspects is None else f"{len(ids)} videos again"
    answer(
        f"deep check, {again}: {check.identical} of {check.videos} byte for byte the same, "
        f"smallest cosine of {check.clips} clips {check.cosine:.6f}, {len(check.problems)} problems"
    )
    for label, video_ids in (("not on disk any more", sample.gone), ("changed on disk since", sample.changed)):
        if video_ids:
            answer(f"  {label}, so not compared: {len(video_ids)} of the sample, {video_ids[0]} first")
    problems = [f"{video}: {line}" for video, line in check.problems.items()]
    _list(problems)
    findings.problems += problems
    findings.suspects = {video: video in check.other_outcome for video in check.problems}
    same = sort_out(list(check.learnt), store=store, annotations=workspace.annotations(), root=workspace.dataset.root)
    findings.learnt = {video.id: check.learnt[video.id] for video in same.unchanged}
    for key in keys:
        if shards := store.manifest().shards_of(check.problems):
            findings.bad[key] = findings.bad.get(key, set()) | shards


def _learn(extraction: Extraction, findings: Findings) -> None:
    extraction.learn(findings.learnt)
    answer(
        f"{len(findings.learnt)} videos were cached by an earlier version, which noted only parts of their files; "
        "their features are right, so all bytes of the files count from now on"
    )


def _extract_again(
    workspace: Workspace, store: FeatureStore, keys: list[str], deep: DeepOptions, sample: SampledVideos
) -> DeepCheck:
    """Extract videos into a store of their own, the whole way from the probe on, every frame decoded, and compare."""
    annotations = workspace.annotations()
    with (
        tempfile.TemporaryDirectory(prefix="dynaprop-verify-") as scratch,
        Extraction(
            dataset=workspace.dataset,
            annotations=Annotations(videos=sample.unchanged, class_names=annotations.class_names),
            backbones=[workspace.student, workspace.teacher],
            home=Path(scratch),
            device=deep.device,
            workers=deep.workers,
            in_full=True,
        ) as second,
    ):
        plan = second.plan(second.changes())
        with steps("extract again", plan.clips_to_do, "clips") as progress:
            second.extract_shards(plan.shards, on_clips=progress.advance)
        ids = [video.id for video in sample.unchanged]
        return compare_features(ids, stored=store, second=second.store, keys=keys)


def _recompute(extraction: Extraction, findings: Findings) -> set[int]:
    """Withdraw bad shards and extract their videos as always; returns the shards that were written."""
    store = extraction.store
    keys = list(extraction.key_names.values())
    manifest = store.manifest()
    bad = set().union(*findings.bad.values())
    table = manifest.current()
    ids = set(table.loc[table["shard"].isin(bad), "video_id"])
    again = {video for video, probe in findings.suspects.items() if probe}
    for key, shards in findings.bad.items():
        for shard in shards:
            extraction.check_lock()
            store.ledger(key).withdraw(shard)
    unfinished = set(shards_to_do(store, manifest, keys))  # after the withdrawal: what is bad may be unreadable
    changes = extraction.changes(retry=again, hashing=partial(reading_again, TERMINAL)).only(ids)
    with steps("probe", changes.n_probes, "videos") as progress:
        plan = extraction.plan(changes, on_video=progress.advance)
    to_do = [shard for shard in plan.shards if shard in bad or shard not in unfinished]
    clips = sum(int(plan.manifest.shard(shard)["n_clips"].sum()) for shard in to_do)
    with steps("repair", clips, "clips") as progress:
        results = extraction.extract_shards(to_do, on_clips=progress.advance)
    answer(f"repair: {sum(result.videos for result in results)} videos in {len(to_do)} shards recomputed")
    if gone := ids - set(plan.manifest.current()["video_id"]) | {video.id for video in changes.absent}:
        answer(f"  not on disk any more, so not recomputed: {len(gone)} videos, {min(gone)} first")
    if changed := sorted({video.id for video in changes.to_probe}):
        answer(f"  changed on disk, so extracted as they are now: {len(changed)} videos, {changed[0]} first")
    failed = {video: error for video, error in extraction.summary().failed.items() if video in ids}
    for video, error in failed.items():
        say(f"failed: {video}: {error}")
    return set(to_do) | bad


def _list(problems: Sequence[str]) -> None:
    for problem in problems[:_SHOWN]:
        answer(f"  {problem}")
    if len(problems) > _SHOWN:
        answer(f"  ... and {len(problems) - _SHOWN} more")
