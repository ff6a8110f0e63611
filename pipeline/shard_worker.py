"""Extraction of shards in a process that another one hands them to, and what it keeps from shard to shard.

One process holds the store's lock, plans, and hands shards out; any number of workers extract them, wherever they see
the videos and the store. A worker is told a shard's videos, so that it never reads the whole manifest. It holds no lock
of its own: before each write it reads whose the lock is.
"""

import os
import socket
import threading
from collections import deque
from pathlib import Path

import pandas as pd
import torch

from pipeline.cached import locate_backbone
from pipeline.cores import usable_cores
from pipeline.decode_pool import DecodePool
from pipeline.device import resolve_device
from pipeline.errors import DynapropError, InfrastructureError, UnfitWorker
from pipeline.extract import Extractor, ShardResult
from pipeline.lock import LockOwner
from pipeline.lock_record import lock_record
from pipeline.object_path import storage_path
from pipeline.remote import RemoteExtraction
from pipeline.spec_types import is_folder
from pipeline.store import FeatureStore

_PATIENCE = 1.5  # seconds for a worker to come to the end of what it writes


def extract_shard(work: RemoteExtraction, shard: int, videos: pd.DataFrame) -> ShardResult:
    """Extract a shard in this process, one at a time; nothing is done where the ledger has it.

    Backbones and decode children are kept for the next shard of the same extraction.

    Args:
        work: the extraction.
        shard: number of the shard.
        videos: its current ones, rows of the manifest in row order.

    Raises:
        UnfitWorker: this machine lacks the videos, the store, the weights or the device.
        InfrastructureError: trying again may help.
        DynapropError: the extraction is over.
    """
    global _kept
    with _at_work:
        try:
            if _kept is None or _kept.work != work:
                _drop()
                _kept = _Worker(work)
            _kept.videos = {shard: videos}
            return _kept.extractor.extract_shard(shard)
        except BaseException:
            _drop()  # half-read streams of frames are of no use
            raise


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
            raise UnfitWorker(f"{who} sees no folder {work.root}: mount the videos there")
        root = storage_path(work.store)
        if not (root / "features.zarr" / "zarr.json").exists():
            raise UnfitWorker(f"{who} sees no store {root}: it has to be on a shared disk or in an object store")
        try:
            backbones = [locate_backbone(spec) for spec in work.backbones]
            device = resolve_device(work.device)
        except InfrastructureError:
            raise
        except DynapropError as error:
            raise UnfitWorker(f"{who}: {error}") from error
        if (keys := tuple(key.name for key, _ in backbones)) != work.keys:
            raise UnfitWorker(
                f"{who} has other weights, or another version of dynaprop: its features would be {', '.join(keys)}, "
                f"not {', '.join(work.keys)}"
            )
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
            min_share=work.min_share,
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
_at_work = threading.Lock()
_ended: deque[str] = deque(maxlen=100)


def _drop() -> None:
    global _kept
    if _kept is not None:
        _kept.pool.close()
        _kept = None
