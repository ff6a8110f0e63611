"""One dataset's extraction from beginning to end: plan, shards, and what came of it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import zip_longest
from types import TracebackType
from typing import Self

from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.extract.apply import apply_changes
from dynaprop.pipeline.extract.arrays import gone_arrays, make_arrays
from dynaprop.pipeline.extract.changes import Changes, compare
from dynaprop.pipeline.extract.estimate import estimate_seconds
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.outdated import cached_decoders, count_moved
from dynaprop.pipeline.extract.plan import ExtractionPlan, plan_of, require_room, shards_to_do
from dynaprop.pipeline.extract.remote import RemoteExtraction
from dynaprop.pipeline.extract.shard import Extractor
from dynaprop.pipeline.extract.summary import ExtractionSummary, failed_videos, published, summarise
from dynaprop.pipeline.io.local_lock import lock_record
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.machine import resolve_device
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.names import locate_backbone, open_store, store_path
from dynaprop.pipeline.store.repair import find_strays, remove_strays
from dynaprop.pipeline.video.decoders import require_decoder
from dynaprop.pipeline.video.earlier_rules import READING_RULES
from dynaprop.pipeline.video.identity import FileIdentity, Hashing


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

    @property
    def _keys(self) -> list[FeatureKey]:
        return [key for key, _ in self.backbones.values()]

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
        gone = gone_arrays(self.store, self._keys)
        make_arrays(self.store, gone, check=self.check_lock)
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
        if gone := gone_arrays(self.store, self._keys):
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
        reread = count_moved(changes.outdated, before, manifest) if changes.outdated else 0
        plan = plan_of(self.store, manifest, shards, self._keys, reread=reread)
        if save:
            require_room(self.store.root, plan.bytes_to_write)
        return plan

    def estimate_seconds(self, plan: ExtractionPlan) -> float:
        """Measure decoding on a few videos and each backbone on two batches, and scale to the plan."""
        return estimate_seconds(self._open_extractor(), plan) if plan.shards else 0.0

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
        return published(self.store, list(self.key_names.values()), shard)

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
        make_arrays(self.store, self._keys, check=self.check_lock)
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
        return summarise(self.store, self.key_names, self._results)

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

    def _check_backbones(self, keys: Collection[str]) -> None:
        """Make sure that the backbones of these keys can be built, before the work begins that is for them."""
        if keys:
            from dynaprop.pipeline.backbones.timm_networks import (
                check_backbones,  # takes seconds, and what is cached needs no network
            )

            check_backbones([one for one in self.backbones.values() if one[0].name in keys])
