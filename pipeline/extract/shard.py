"""Extraction: one shard's videos in, its rows of features written whole, then its ledger."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.decoding.stream import DecodedVideo, DecodeOutcome
from dynaprop.pipeline.errors import InfrastructureError
from dynaprop.pipeline.extract.arrays import array_attributes
from dynaprop.pipeline.extract.batches import ShardFeatures
from dynaprop.pipeline.extract.outcomes import ShardResult, errors_of, failure, ledger_row
from dynaprop.pipeline.store.checksum import checksum
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.ledger import LedgerRow
from dynaprop.pipeline.store.recorded import decoder_of, frame_request, recorded
from dynaprop.pipeline.video.container import VideoError

if TYPE_CHECKING:
    from dynaprop.pipeline.backbones.backbone import FrameBackbone  # imports torch, which what is cached does not need


class Extractor:
    """Extracts shards of one store with a fixed set of backbones.

    Args:
        store: where features go.
        videos_of: from a shard's number to its current videos, rows of the manifest in row order.
        n_shards: of the manifest.
        backbones: key and weights of every branch.
        root: folder that the manifest's video paths are relative to.
        pool: the decode children.
        check: called before the store is written to; it raises when that is no longer this process's right.
        device: torch device of the backbones.
        batch_size: frames a forward pass; fixed, as the last bits of a feature depend on it.
        decoder: what reads video files, ``pyav`` or ``decord``.
        min_share: a video of which less than this part is there fails; see ``share_there``.
        on_note: called with a line for people where a backbone runs slower than it might.
        loaded: backbones by the name of their key, on this device, to be used and added to; by one user at a time.
        alone: whether no other process can extract the same shard.
    """

    def __init__(
        self,
        *,
        store: FeatureStore,
        videos_of: Callable[[int], pd.DataFrame],
        n_shards: int,
        backbones: Sequence[tuple[FeatureKey, Weights]],
        root: str,
        pool: DecodePool,
        check: Callable[[], None],
        device: str = "cpu",
        batch_size: int = 32,
        decoder: str = "pyav",
        min_share: float = 0.5,
        on_note: Callable[[str], None] | None = None,
        loaded: dict[str, "FrameBackbone"] | None = None,
        alone: bool = True,
    ) -> None:
        self.store = store
        self.keys = [key for key, _ in backbones]
        self.pool = pool
        self.batch_size = batch_size
        self.min_share = min_share
        self.decoder = decoder
        self._videos_of = videos_of
        self._n_shards = n_shards
        self._weights = {key.name: weights for key, weights in backbones}
        self.root = root
        self._check = check
        self._device = device
        self._on_note = on_note
        self._alone = alone
        self._loaded = {} if loaded is None else loaded
        self._described: set[str] = set()
        self._ahead: _ShardInWork | None = None

    def missing(self, shard: int) -> list[FeatureKey]:
        """Keys whose features of this shard are not published, or not of the videos that the manifest has there."""
        videos = self._videos_of(shard)
        return [key for key in self.keys if not self.store.ledger(key.name).has(shard, videos)]

    def extract_shard(
        self, shard: int, *, then: int | None = None, on_clips: Callable[[int], None] | None = None
    ) -> ShardResult:
        """Decode a shard's videos once and write the features of every branch that is missing.

        Args:
            shard: number of the shard.
            then: the shard that will be extracted next, if any: its decoding begins before this one is written.
            on_clips: called with the number of clips newly done.

        Raises:
            InfrastructureError: the disk of the videos, or the store, has gone; trying again may help.
        """
        if self._ahead is not None and self._ahead.shard != shard:
            raise ValueError(f"shard {self._ahead.shard} was to follow, not {shard}")
        work = self._ahead or self._begin(shard)
        self._ahead = None
        if work is None:
            return ShardResult(shard)
        began = time.monotonic()
        records = work.records
        branches = [self._branch(key) for key in work.keys]
        sizes = work.sizes
        first_row = shard * self.store.shard_rows
        outcomes: list[DecodeOutcome] = []
        for record, stream in zip(records, work.streams, strict=True):
            if then is not None and record is records[-1]:
                self._ahead = self._begin(then)
            done = 0
            for clip, frames in stream:
                for branch in branches:
                    branch.add(record["row"] - first_row + clip, frames[sizes.index(branch.backbone.key.size)])
                if on_clips and clip >= done:  # a video that is decoded anew counts once
                    on_clips(clip + 1 - done)
                    done = clip + 1
            assert stream.outcome is not None
            outcomes.append(self._of_the_same_file(record, stream.outcome))
            if on_clips:
                on_clips(record["n_clips"] - done)
        self._require_videos(records)
        rows: list[LedgerRow] = []
        for branch in branches:
            branch.finish()
            rows += self._write(shard, branch, records, outcomes)
        return ShardResult(
            shard,
            videos=len(records),
            clips=sum(record["n_clips"] for record in records),
            frames=sum(branch.forwarded for branch in branches),
            failed=(failed := errors_of(rows, "failed")),
            partial={video: lack for video, lack in errors_of(rows, "partial").items() if video not in failed},
            seconds=time.monotonic() - began,
        )

    def _begin(self, shard: int) -> "_ShardInWork | None":
        """Let the decode children begin with a shard; None where nothing is to be done."""
        keys = self.missing(shard)
        records = self._videos_of(shard).to_dict("records")
        if not keys or not records:
            return None
        self._check()
        sizes = sorted({key.size for key in keys})
        requests = [frame_request(record, self.root) for record in records]
        streams = self.pool.decode(requests, sizes, [decoder_of(record, self.decoder) for record in records])
        return _ShardInWork(shard, keys, sizes, records, chain([next(streams)], streams))  # they begin with the first

    def backbone(self, key: FeatureKey) -> "FrameBackbone":
        from dynaprop.pipeline.backbones.backbone import FrameBackbone

        if key.name not in self._loaded:
            self._loaded[key.name] = FrameBackbone(
                key=key, weights=self._weights[key.name], device=self._device, on_note=self._on_note
            )
        return self._loaded[key.name]

    def _branch(self, key: FeatureKey) -> ShardFeatures:
        backbone = self.backbone(key)
        if key.name not in self._described:  # for all shards at once
            self.store.ensure_array(
                key,
                channels=backbone.channels,
                n_shards=self._n_shards,
                attributes=array_attributes(key),
            )
            self._described.add(key.name)
        return ShardFeatures(backbone, rows=self.store.shard_rows, batch_size=self.batch_size)

    def _write(
        self, shard: int, branch: ShardFeatures, records: list[dict[Any, Any]], outcomes: list[DecodeOutcome]
    ) -> list[LedgerRow]:
        """Write, read back, publish: in this order a reader never meets a half-written shard.

        What another process has published meanwhile, who was given the shard when this one seemed lost, stays. Where
        both write at once, and features differ in their last bits, whoever writes the chunk last has to publish last:
        so who finds another's chunk under its own ledger writes both again.
        """
        first_row = shard * self.store.shard_rows
        rows = []
        for record, outcome in zip(records, outcomes, strict=True):
            features = branch.features[record["row"] - first_row :][: record["n_clips"]]
            there = np.setdiff1d(np.arange(record["n_clips"]), outcome.missing)
            error = failure(record, outcome, min_share=self.min_share)
            if error is None and not np.isfinite(features[there]).all():
                error = VideoError("not_finite", "a feature is not a finite half-precision number")
            if error is not None:
                features[:] = np.nan
            else:
                features[: len(there)] = features[there]
                features[len(there) :] = np.nan
            rows.append(ledger_row(record, outcome, there, error, None if error else checksum(features[: len(there)])))
        key = branch.backbone.key.name
        ledger = self.store.ledger(key)
        self._check()
        if ledger.has(shard, self._videos_of(shard)):
            return rows
        while True:
            self.store.write_shard(key, shard, branch.features)
            self._check()
            ledger.publish(shard, rows)
            if self._alone or self.store.holds(key, shard, branch.features):
                return rows
            self._check()

    def _require_videos(self, records: list[dict[Any, Any]]) -> None:
        """Refuse to call all videos of a shard failed where it is their disk that has gone."""
        if not any(Path(self.root, record["path"]).exists() for record in records):
            raise InfrastructureError(
                f"{self.root} on {socket.gethostname()}: none of a shard's {len(records)} videos is there any more; "
                "is their disk still mounted?"
            )

    def _of_the_same_file(self, record: dict[Any, Any], outcome: DecodeOutcome) -> DecodeOutcome:
        """The outcome, or ``changed``: what was decoded need not be what was probed, perhaps days before."""
        source, known = recorded(record, self.root)
        if source.is_still(known):
            return outcome
        return replace(outcome, error=VideoError("changed", "since it was probed; the next extraction looks again"))


@dataclass(frozen=True)
class _ShardInWork:
    """A shard that is being decoded."""

    shard: int
    keys: list[FeatureKey]
    """What is missing of it."""
    sizes: list[int]
    """Of the frames, pixels a side."""
    records: list[dict[Any, Any]]
    """Its videos, rows of the manifest."""
    streams: Iterator[DecodedVideo]
    """Their frames."""
