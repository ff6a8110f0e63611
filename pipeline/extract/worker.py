"""Extraction of shards in a process that another one hands them to, and what it keeps from shard to shard.

One process holds the store's lock, plans, and hands shards out; any number of workers extract them, wherever they see
the videos and the store. A worker is told a shard's videos, so that it never reads the whole manifest. It holds no lock
of its own: before each write it reads whose the lock is.
"""

import gc
import os
import socket
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError, InfrastructureError, UnfitWorker
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.remote import RemoteExtraction
from dynaprop.pipeline.extract.shard import Extractor
from dynaprop.pipeline.io.atomic import reading
from dynaprop.pipeline.io.local_lock import lock_record
from dynaprop.pipeline.io.lock import LockOwner
from dynaprop.pipeline.io.paths import is_folder, storage_path
from dynaprop.pipeline.machine import resolve_device, usable_cores
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.names import locate_backbone
from dynaprop.pipeline.video.decoders import require_decoder
from dynaprop.pipeline.video.earlier_rules import READING_RULES

if TYPE_CHECKING:
    from dynaprop.pipeline.backbones.backbone import FrameBackbone

_PATIENCE = 1.5  # seconds for a worker to come to the end of what it writes
_RECIPES = 3  # sets of backbones that stay loaded: several commands may share the workers
_IDLE = 300.0  # seconds without a shard until all is given back: nobody says goodbye for a command that was killed


def extract_shard(work: RemoteExtraction, shard: int, videos: pd.DataFrame) -> ShardResult:
    """Extract a shard in this process, one at a time; nothing is done where the ledger has it.

    Decode children are kept for the next shard of the same extraction, backbones for any that has the same.

    Args:
        work: the extraction.
        shard: number of the shard.
        videos: its current ones, rows of the manifest in row order.

    Raises:
        UnfitWorker: this machine lacks the device or the decoder, or the videos, the store or the weights, and has
            never seen them.
        InfrastructureError: trying again may help.
        DynapropError: the extraction is over.
    """
    global _kept
    with _at_work:
        _idle.cancel()
        try:
            if _kept is None or _kept.work != work:
                _drop()
                _kept = _Worker(work)
            _kept.videos = {shard: videos}
            return _kept.extractor.extract_shard(shard)
        except BaseException as error:
            _drop()  # half-read streams of frames are of no use
            if not isinstance(error, DynapropError):  # perhaps the device's
                _loaded.clear()
            raise
        finally:
            _wait_idly()


def end(owner: str) -> None:
    """Write nothing more for an extraction, and drop what is kept for it; called where it ends, however it ends."""
    _ended.append(owner)
    kept = _kept
    if kept is None or kept.work.owner != owner:
        return
    threading.Thread(target=kept.pool.close, daemon=True).start()  # who waits for frames waits no longer
    if _at_work.acquire(timeout=_PATIENCE):
        try:
            _drop()
        finally:
            _at_work.release()


class _Worker:
    """What a process keeps between the shards of one extraction."""

    def __init__(self, work: RemoteExtraction) -> None:
        self.work = work
        self.videos: dict[int, pd.DataFrame] = {}
        """Of the shard at work."""
        who = f"worker {os.getpid()} on {socket.gethostname()}"
        if not is_folder(Path(work.root)):  # else all its videos would count as unreadable
            raise _lack(work.root, f"{who} sees no folder {work.root}: mount the videos there")
        root = storage_path(work.store)
        with reading(root):
            has_store = (root / "features.zarr" / "zarr.json").exists()
        if not has_store:
            raise _lack(work.store, f"{who} sees no store {root}: it has to be on a shared disk or in an object store")
        try:
            backbones = [locate_backbone(spec) for spec in work.backbones]
        except InfrastructureError:
            raise
        except DynapropError as error:
            raise _lack(work.feature_keys, f"{who}: {error}") from error
        try:
            require_decoder(work.decoder)
            device = resolve_device(work.device)
        except DynapropError as error:
            raise UnfitWorker(f"{who}: {error}") from error
        if work.rules != READING_RULES:
            raise UnfitWorker(f"{who} has another version of dynaprop, which may read other frames")
        if (keys := tuple(key.name for key, _ in backbones)) != work.feature_keys:
            raise UnfitWorker(
                f"{who} has other weights, or another version of dynaprop: its features would be {', '.join(keys)}, "
                f"not {', '.join(work.feature_keys)}"
            )
        _seen.update((work.root, work.store, work.feature_keys))
        self._record = lock_record(root)
        self.check()
        store = FeatureStore.existing(root, read_only=False)
        cores = max(1, usable_cores() // work.peers)
        torch.set_num_threads(cores)
        self.pool = DecodePool(workers=work.decoders or cores, deadline=work.deadline)
        self.extractor = Extractor(
            store=store,
            videos_of=lambda shard: self.videos[shard],
            n_shards=work.n_shards,
            backbones=backbones,
            root=work.root,
            pool=self.pool,
            check=self.check,
            device=device,
            decoder=work.decoder,
            min_share=work.min_share,
            loaded=_backbones(work.feature_keys, device, cores),
            alone=False,  # who seems lost may be at work
        )

    def check(self) -> None:
        """Make sure that the extraction still goes on.

        Raises:
            DynapropError: it has ended.
            InfrastructureError: its lock is not to be seen: whoever handed out the shard knows whether it is lost.
        """
        if self.work.owner in _ended:
            raise DynapropError(f"{self.work.store}: the extraction that this shard was for is over")
        content = self._record.content()
        holder = LockOwner.parse(content) if content is not None else None
        if holder is None or holder.owner != self.work.owner:
            raise InfrastructureError(
                f"{self.work.store}: {socket.gethostname()} does not see the lock of the extraction of this shard"
            )


_kept: _Worker | None = None
_loaded: dict[tuple[tuple[str, ...], str, int], dict[str, "FrameBackbone"]] = {}
_at_work = threading.Lock()
_idle = threading.Timer(_IDLE, lambda: None)
_ended: deque[str] = deque(maxlen=100)
_seen: set[object] = set()  # videos, stores and weights that were here


def _lack(what: object, message: str) -> InfrastructureError:
    """What to raise where something is not here: what this process has seen may come back, with the disk it is on."""
    return InfrastructureError(message) if what in _seen else UnfitWorker(message)


def _backbones(keys: tuple[str, ...], device: str, threads: int) -> dict[str, "FrameBackbone"]:
    """The loaded ones of a recipe by the name of their key; who loads one adds it. The last few recipes' are kept."""
    recipe = keys, device, threads  # a CPU's are compiled for so many threads, which shape the last bits
    _loaded[recipe] = loaded = _loaded.pop(recipe, {})
    while len(_loaded) > _RECIPES:
        del _loaded[next(iter(_loaded))]
    return loaded


def _drop() -> None:
    """End what belongs to one extraction."""
    global _kept
    if _kept is not None:
        _kept.pool.close()
        _kept = None


def _wait_idly() -> None:
    """Give everything back later, unless another shard comes."""
    global _idle
    _idle = threading.Timer(_IDLE, _give_back)
    _idle.daemon = True
    _idle.start()


def _give_back() -> None:
    """Called by a timer; where a shard was at work when it rang, another one counts now."""
    with _at_work:
        if threading.current_thread() is not _idle:
            return
        _drop()
        _loaded.clear()
        gc.collect()  # an extractor and what it calls refer to one another
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
