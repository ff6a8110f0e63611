"""One dataset's extraction from beginning to end: plan, shards, and what came of it."""

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Self

from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.catalog.datasets import BackboneSpec, DatasetSpec
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.device import resolve_device
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.extract.outdated import cached_decoders, count_moved
from dynaprop.pipeline.extract.plan import Changes, apply_changes, compare, failed_videos, partial_videos, shards_to_do
from dynaprop.pipeline.extract.remote import RemoteExtraction
from dynaprop.pipeline.extract.shard import Extractor, ShardResult, array_attributes
from dynaprop.pipeline.io.local_lock import lock_record
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.store.feature_store import FeatureStore, find_strays, remove_strays
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.store.names import locate_backbone, open_store, store_path
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import require_decoder
from dynaprop.pipeline.video.earlier_rules import READING_RULES
from dynaprop.pipeline.video.identity import FileIdentity, Hashing

_DISK_RESERVE = 64 * 2**20  # bytes left free for ledgers, manifest and everybody else


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction has to do."""

    manifest: Manifest
    videos: int
    """Videos on disk; absent ones are not counted."""
    clips: int
    """Clips of all videos."""
    shards: dict[int, tuple[str, ...]]
    """Shards that are not done, with the names of the feature keys that they lack."""
    clips_to_do: int
    bytes_to_write: int
    reread: int = 0
    """Videos that an earlier version cached other frames of than are read today."""

    def videos_of(self, shard: int) -> int:
        """Videos of a shard."""
        return len(self.manifest.shard(shard))

    def clips_of(self, shard: int) -> int:
        """Clips of a shard's videos."""
        return int(self.manifest.shard(shard)["n_clips"].sum())


@dataclass(frozen=True)
class ExtractionSummary:
    """What an extraction left in the store."""

    videos: int
    """Videos on disk; absent ones are not counted."""
    usable: int
    failed: dict[str, VideoError]
    partial: dict[str, VideoError]
    """Usable videos of which something is missing, and what."""
    absent: tuple[str, ...]
    """Ids of the videos that the dataset lists and the disk lacks."""
    decoded: int
    """Videos that this run decoded, failed ones included."""
    forwarded: int
    """Frames that went through a backbone in this run, all branches together."""
    keys: dict[str, str]
    """Name of the feature key by backbone."""
    store: StoragePath


class Extraction:
    """Extracts a dataset's frame features for some backbones: a context manager that holds the store's lock.

    Args:
        dataset: the dataset.
        annotations: its videos, or what reads them: after the lock was waited for they may be others.
        backbones: student and teacher, or any others.
        home: folder of ``stores/``, or its place in an object store.
        device: torch device, or ``auto``.
        workers: decode children; one a core by default.
        deadline: seconds without a new frame after which a video is given up.
        in_full: decode every frame, to compare with; see ``DecodePool``.
        dry_run: write nothing, and so take no lock.
        wait: wait while another process extracts into the store, instead of refusing.
        on_note: called with a line for people: about the lock, or a backbone that runs slower than it might.

    Raises:
        UsageError: the dataset's decoder is not installed.
        DynapropError: on entry, when another process holds the lock, or the store cannot be written to.
    """

    def __init__(
        self,
        *,
        dataset: DatasetSpec,
        annotations: Annotations | Callable[[], Annotations],
        backbones: Sequence[BackboneSpec],
        home: StoragePath,
        device: str = "auto",
        workers: int | None = None,
        deadline: float = 60.0,
        in_full: bool = False,
        dry_run: bool = False,
        wait: bool = False,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self._device = device if device == "auto" else resolve_device(device)
        require_decoder(dataset.decoder)
        self._specs = tuple(backbones)
        self.backbones = {spec.name: locate_backbone(spec) for spec in backbones}
        self.dataset = dataset
        self._annotations = annotations
        self.home = home
        self._workers = workers
        self._deadline = deadline
        self._in_full = in_full
        self._on_note = on_note
        self._lock: StoreLock | None = None
        if not dry_run:
            root = store_path(dataset, home)
            self._lock = StoreLock(lock_record(root), name=str(root), wait=wait, on_note=on_note)
        self._pool: DecodePool | None = None
        self._extractor: Extractor | None = None
        self._store: FeatureStore | None = None
        self._results: list[ShardResult] = []

    def __enter__(self) -> Self:
        if self._lock is not None:
            self._lock.__enter__()
            try:
                if self._lock.taken_over:
                    remove_strays(store_path(self.dataset, self.home))
            except BaseException:
                self._lock.__exit__()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        """End the decode children, bring the ledgers' indexes up to date, then give back the lock."""
        try:
            self._close_pool()
            if kind is None and self._lock is not None and self._store is not None:
                with suppress(DynapropError):  # readers can do without
                    for key in self.key_names.values():
                        self.check_lock()
                        self._store.ledger(key).index()
        finally:
            if self._lock is not None:
                self._lock.__exit__()

    @cached_property
    def device(self) -> str:
        """Torch device of the backbones."""
        return resolve_device(self._device)

    @cached_property
    def annotations(self) -> Annotations:
        """The dataset's videos."""
        return self._annotations() if callable(self._annotations) else self._annotations

    def check_lock(self, *, writes: bool = True) -> None:
        """Make sure that this process may still write to the store, or let others; see ``StoreLock.check``."""
        if self._lock is None:
            raise RuntimeError("a dry run does not write")
        self._lock.check(writes=writes)

    @property
    def store(self) -> FeatureStore:
        if self._store is None:
            self._store = open_store(self.dataset, self.home)
        return self._store

    @property
    def pool(self) -> DecodePool:
        if self._pool is None:
            self._pool = DecodePool(workers=self._workers, deadline=self._deadline, in_full=self._in_full)
        return self._pool

    @property
    def key_names(self) -> dict[str, str]:
        """Name of the feature key by backbone."""
        return {name: key.name for name, (key, _) in self.backbones.items()}

    def learn(self, identities: Mapping[str, FileIdentity]) -> None:
        """Note what the files of some videos are, by id, of which an earlier version noted less."""
        manifest = self.store.manifest()
        known = manifest.identities()
        self.check_lock()
        manifest.restamped({video: identity for video, identity in identities.items() if video not in known}).save(
            self.store.manifest_path
        )

    def restore_arrays(self) -> list[str]:
        """Describe anew the arrays that are gone while their ledgers are not; returns the names of their keys."""
        gone = self._gone_arrays()
        self._describe(gone)
        return [key.name for key in gone]

    def changes(
        self, *, retry_failed: bool = False, retry: Iterable[str] = (), hashing: Hashing | None = None
    ) -> Changes:
        """Compare the files on disk with the manifest; videos that changed while they were decoded are tried again.

        Args:
            retry_failed: probe and extract failed videos again.
            retry: ids of others to probe and extract again.
            hashing: shows how far it is where videos have to be read.
        """
        manifest = self.store.manifest()
        failed = failed_videos(self.store, list(self.key_names.values()))
        again = {video for video, error in failed.items() if retry_failed or error.kind == "changed"}
        return compare(
            manifest,
            self.annotations.videos,
            root=self.dataset.root,
            absent=self.annotations.absent,
            retry={*again, *retry},
            hashing=hashing,
        )

    def plan(
        self, changes: Changes, *, save: bool = True, on_video: Callable[[], None] | None = None
    ) -> ExtractionPlan:
        """Probe what is new, bring the manifest up to date, and say what there is to do.

        Args:
            changes: from ``changes()``.
            save: False leaves the manifest on disk as it was (a dry run).
            on_video: called after each probed video.

        Raises:
            UsageError: a backbone does not take frames of its size.
            DynapropError: the disk has too little room for the features, an array is gone or damaged, or a backbone's
                weights cannot be used.
        """
        if gone := self._gone_arrays():
            raise DynapropError(f"{self.store.root}: the array {gone[0].name} is gone", remedy="repair")
        if changes.n_probes:
            self._check_backbones(self.key_names.values())
        before = self.store.manifest()
        for manifest in apply_changes(
            before,
            changes,
            pool=self.pool,
            root=self.dataset.root,
            clip_seconds=self.dataset.clip_seconds,
            min_clips=self.dataset.min_clips,
            max_clips=self.dataset.max_clips,
            decoders=cached_decoders(self.store) if changes.outdated else None,
            on_video=on_video,
        ):
            if save and changes:
                self.check_lock()
                manifest.save(self.store.manifest_path)
        keys = list(self.key_names.values())
        again = manifest.shards_of(video.id for video in changes.retried)
        if save:
            for key in keys:
                for shard in again:
                    self.store.ledger(key).withdraw(shard)
        shards = {**shards_to_do(self.store, manifest, keys), **dict.fromkeys(again, tuple(keys))}
        shards = dict(sorted(shards.items()))
        if not changes.n_probes:
            self._check_backbones(set().union(*shards.values()))
        plan = ExtractionPlan(
            manifest=manifest,
            videos=len(manifest.current()) - len(manifest.absent()),
            clips=int(manifest.current()["n_clips"].sum()),
            shards=shards,
            clips_to_do=int(sum(manifest.shard(shard)["n_clips"].sum() for shard in shards)),
            bytes_to_write=self._bytes_to_write(shards, manifest),
            reread=count_moved(changes.outdated, before, manifest) if changes.outdated else 0,
        )
        if save:
            self._check_room(plan.bytes_to_write)
        return plan

    def estimate_seconds(self, plan: ExtractionPlan) -> float:
        """Measure decoding on a few videos and each backbone on two batches, and scale to the plan."""
        if not plan.shards:
            return 0.0
        extractor = self._open_extractor()
        shard_clips = {shard: plan.clips_of(shard) for shard in plan.shards}
        seconds = 0.0
        for key in {key for missing in plan.shards.values() for key in missing}:
            clips = sum(shard_clips[shard] for shard, missing in plan.shards.items() if key in missing)
            seconds += clips * extractor.seconds_per_frame(key)
        table = plan.manifest.current()
        sample = table[table["shard"].isin(list(plan.shards))].head(2 * self.pool.workers)
        return seconds + plan.clips_to_do * extractor.decode_seconds_per_clip(sample)

    def extract_shard(
        self, shard: int, *, then: int | None = None, on_clips: Callable[[int], None] | None = None
    ) -> ShardResult:
        """Extract one shard of the saved plan; see ``Extractor.extract_shard``."""
        done = 0

        def count(clips: int) -> None:
            nonlocal done
            done += clips
            if on_clips:
                on_clips(clips)

        try:
            result = self._open_extractor().extract_shard(shard, then=then, on_clips=count)
        except InfrastructureError:  # whoever tries again begins anew: what is half decoded is of no use
            self._close_pool()
            count(-done)
            raise
        self.count(result)
        return result

    def published(self, shard: int) -> ShardResult:
        """What the ledgers say of a shard that somebody has extracted whose own answer was lost."""
        frames, failed, partial = 0, dict[str, VideoError](), dict[str, VideoError]()
        for key in self.key_names.values():
            rows = self.store.ledger(key).read_shard(shard)
            frames += int(rows.loc[rows["status"] != "failed", "n_clips"].sum())
            for status, errors in (("failed", failed), ("partial", partial)):
                for row in rows[rows["status"] == status].itertuples():
                    errors[row.video_id] = VideoError(row.error_kind, row.error_detail)
        videos = self.store.manifest().shard(shard)
        return ShardResult(
            shard,
            videos=len(videos),
            clips=int(videos["n_clips"].sum()),
            frames=frames,
            failed=failed,
            partial={video: lack for video, lack in partial.items() if video not in failed},
        )

    def remove_strays(self) -> None:
        """Delete temporary files of workers that were lost; only when no other one works."""
        if find_strays(self.store.root):
            self.check_lock()
            remove_strays(self.store.root)

    def remote(self, *, device: str, peers: int) -> RemoteExtraction:
        """What other processes need to extract shards of the saved plan; the arrays are made here, for all of them.

        Args:
            device: torch device of theirs, or ``auto``.
            peers: how many of them share a core.
        """
        if self._lock is None:
            raise RuntimeError("a dry run does not write")
        self._describe([key for key, _ in self.backbones.values()])
        return RemoteExtraction(
            store=str(self.store.root),
            root=str(self.dataset.root),
            backbones=self._specs,
            feature_keys=tuple(self.key_names.values()),
            rules=READING_RULES,
            n_shards=self.store.manifest().n_shards,
            owner=self._lock.owner,
            device=device,
            decoders=self._workers,
            peers=peers,
            deadline=self._deadline,
            decoder=self.dataset.decoder,
            min_share=self.dataset.min_share,
        )

    def count(self, result: ShardResult) -> None:
        """Let a shard that another process has extracted count in this run's summary."""
        self._results.append(result)

    def extract_shards(
        self, shards: Iterable[int], *, on_clips: Callable[[int], None] | None = None
    ) -> list[ShardResult]:
        """Extract shards of the saved plan one after the other."""
        numbers = list(shards)
        return [
            self.extract_shard(shard, then=then, on_clips=on_clips) for shard, then in zip_longest(numbers, numbers[1:])
        ]

    def summary(self) -> ExtractionSummary:
        """What is in the store now, and what this run did for it."""
        keys = self.key_names
        failed = failed_videos(self.store, list(keys.values()))
        manifest = self.store.manifest()
        absent = tuple(manifest.absent()["video_id"])
        videos = len(manifest.current()) - len(absent)
        return ExtractionSummary(
            videos=videos,
            usable=videos - len(failed),
            failed=failed,
            partial=partial_videos(self.store, list(keys.values())),
            absent=absent,
            decoded=sum(result.videos for result in self._results),
            forwarded=sum(result.frames for result in self._results),
            keys=keys,
            store=self.store.root,
        )

    def _close_pool(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool = self._extractor = None

    def _open_extractor(self) -> Extractor:
        if self._extractor is None:
            manifest = self.store.manifest()
            self._extractor = Extractor(
                store=self.store,
                videos_of=manifest.shard,
                n_shards=manifest.n_shards,
                backbones=list(self.backbones.values()),
                root=str(self.dataset.root),
                pool=self.pool,
                check=self.check_lock,
                device=self.device,
                decoder=self.dataset.decoder,
                min_share=self.dataset.min_share,
                on_note=self._on_note,
            )
        return self._extractor

    def _describe(self, keys: Iterable[FeatureKey]) -> None:
        """Create or grow the arrays of keys."""
        for key in keys:
            self.check_lock()
            self.store.ensure_array(
                key,
                channels=_channels(key),
                n_shards=self.store.manifest().n_shards,
                attributes=array_attributes(key),
            )

    def _gone_arrays(self) -> list[FeatureKey]:
        """Keys that have ledgers and no array; raises where one is damaged."""
        there = self.store.keys()
        keys = [key for key, _ in self.backbones.values()]
        return [key for key in keys if key.name not in there and self.store.ledger(key.name).published()]

    def _bytes_to_write(self, shards: dict[int, tuple[str, ...]], manifest: Manifest) -> int:
        missing_keys = set().union(*shards.values())
        width = {key.name: _channels(key) for key, _ in self.backbones.values() if key.name in missing_keys}
        return sum(self.store.shard_rows * width[key] * 2 for missing in shards.values() for key in missing)

    def _check_backbones(self, keys: Collection[str]) -> None:
        """Make sure that the backbones of these keys can be built, before the work begins that is for them."""
        if keys:
            from dynaprop.pipeline.backbones.timm_networks import (
                check_backbones,  # takes seconds, and what is cached needs no network
            )

            check_backbones([one for one in self.backbones.values() if one[0].name in keys])

    def _check_room(self, needed: int) -> None:
        if not isinstance(self.store.root, Path):
            return  # an object store does not say
        free = shutil.disk_usage(self.store.root).free
        if needed + _DISK_RESERVE > free:
            raise DynapropError(
                f"{self.store.root}: the features need {needed / 2**30:.2f} GiB and only {free / 2**30:.2f} GiB are "
                "free; make room or set DYNAPROP_HOME to a larger disk"
            )


def _channels(key: FeatureKey) -> int:
    from dynaprop.pipeline.backbones.timm_networks import channels  # takes seconds, and what is cached needs no network

    return channels(key.model, key.size)
