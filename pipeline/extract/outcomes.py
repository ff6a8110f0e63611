"""What came of a shard's videos: rows of its ledger, and the shard's result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynaprop.pipeline.decoding.stream import DecodeOutcome
from dynaprop.pipeline.store.ledger import LedgerRow
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.probe import share_there


@dataclass(frozen=True)
class ShardResult:
    """What one shard took."""

    shard: int
    videos: int = 0
    """Videos decoded; 0 when the shard was already published."""
    clips: int = 0
    """Clips that went through at least one backbone."""
    frames: int = 0
    """Frames that went through a backbone, all branches together."""
    failed: Mapping[str, VideoError] = field(default_factory=dict)
    """Videos that cannot be used, by id."""
    partial: Mapping[str, VideoError] = field(default_factory=dict)
    """Usable videos of which something is missing, and what."""
    seconds: float = 0.0
    """From the first frame that was waited for to the last ledger."""


def errors_of(rows: Sequence[LedgerRow], status: str) -> dict[str, VideoError]:
    """What is wrong with the videos of this status, by id."""
    found = (row for row in rows if row.status == status)
    return {row.video_id: VideoError(str(row.error_kind), str(row.error_detail)) for row in found}


def failure(record: dict[Any, Any], outcome: DecodeOutcome, *, min_share: float) -> VideoError | None:
    """What makes a video unusable: an error, or that too little of it is there."""
    if outcome.error or _share(record, outcome) >= min_share:
        return outcome.error
    return VideoError("missing_frames", f"{_what_is_missing(record, outcome)}; min_share is {min_share:g}")


def _share(record: dict[Any, Any], outcome: DecodeOutcome) -> float:
    """The part of a video that is there."""
    return share_there(record["share"], 1 - len(outcome.missing) / record["n_clips"], record["decoder"])


def _what_is_missing(record: dict[Any, Any], outcome: DecodeOutcome) -> str:
    parts = []
    if outcome.missing:
        seconds = record["timestamps"][outcome.missing[0]]
        parts.append(f"{len(outcome.missing)} of {record['n_clips']} clips cannot be decoded, first at {seconds:.2f} s")
    if record["share"] < 1 and record["decoder"] == "frames":
        parts.append(record["note"])
    elif record["share"] < 1:
        parts.append(f"the file holds {record['share']:.1%} of the frames that it announces")
    return "; ".join(parts)


def ledger_row(
    record: dict[Any, Any], outcome: DecodeOutcome, there: np.ndarray, error: VideoError | None, digest: str | None
) -> LedgerRow:
    """One video's row; ``there`` are the clips that were decoded."""
    if error:
        status, kind, detail = "failed", error.kind, error.detail
        there = np.arange(record["n_clips"])
    elif lack := _what_is_missing(record, outcome):
        status, kind, detail = "partial", "missing_frames", lack
    else:
        status, kind, detail = "ok", None, None
    return LedgerRow(
        video_id=record["video_id"],
        size=record["size"],
        mtime_ns=record["mtime_ns"],
        content=record["content"],
        status=status,
        error_kind=kind,
        error_detail=detail,
        shard=record["shard"],
        row=record["row"],
        n_clips=len(there),
        n_missing=record["n_clips"] - len(there),
        timestamps=np.asarray(record["timestamps"])[there],
        timestamps_source="estimated" if record["estimated"] else "measured",
        checksum=digest,
        decoder=outcome.decoder,
        width=record["width"],
        height=record["height"],
        note=record["note"] or None,
        attempts=outcome.attempts,
        seconds=outcome.seconds,
    )
