"""Transcoding in the children of a decode pool."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dynaprop.pipeline.decoding.pool import CONCLUSIVE, FAILURES, LOSSES, DecodePool
from dynaprop.pipeline.decoding.process import ChildLost, DecodeProcess
from dynaprop.pipeline.io.atomic import published, writing
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.identity import Stamp
from dynaprop.pipeline.video.transcode import Transcoded


@dataclass(frozen=True)
class CopyRequest:
    """A video to transcode."""

    path: str
    stamp: Stamp
    """Size and times that the copy is of; while it is made they must not change."""
    copy: Path
    """Where the copy belongs. What lies there is kept if it is a whole copy with this tag, else replaced."""
    tag: str
    """What the copy says of itself: of which content it is."""
    short_side: int


@dataclass(frozen=True)
class CopyOutcome:
    """A verified copy under its name."""

    transcoded: Transcoded
    found: bool
    """Whether it was there, of an earlier run."""
    seconds: float
    """Wall time from request to rename."""


class CopyPool:
    """Makes copies in the children of a decode pool.

    Args:
        pool: the decode children.
    """

    def __init__(self, pool: DecodePool) -> None:
        self._pool = pool
        self.transcoded_videos = 0
        """Videos that a copy was begun of."""

    def transcode(self, requests: Iterable[CopyRequest]) -> Iterator[CopyOutcome | VideoError]:
        """Make copies; one answer a request, in order. A copy appears under its name when it is whole and verified.

        Raises:
            DynapropError: a copy cannot be written: the disk is full or read-only.
        """
        return self._pool.spread(self._transcode_one, ((request,) for request in requests))

    def _transcode_one(self, child: DecodeProcess, request: CopyRequest) -> CopyOutcome | VideoError:
        began = time.monotonic()
        lost = failures = 0
        while True:
            try:
                outcome = self._find_copy(child, request) or self._make_copy(child, request)
                return replace(outcome, seconds=time.monotonic() - began)
            except ChildLost as loss:
                error = VideoError("crash", f"while transcoding: {loss}")
                lost += loss.from_outside
                failures += not loss.from_outside
            except VideoError as failure:
                error = failure
                failures += 1
            final = error.kind in ("timeout", "changed", *CONCLUSIVE)
            if final or lost == LOSSES or failures == FAILURES or self._pool.stopped:
                return error

    def _find_copy(self, child: DecodeProcess, request: CopyRequest) -> CopyOutcome | None:
        if not request.copy.is_file():
            return None
        *_, (_, payload) = child.ask(_copy_message("check_copy", request, request.copy))
        found = json.loads(payload)["transcoded"]
        return found and CopyOutcome(Transcoded(**found), found=True, seconds=0.0)

    def _make_copy(self, child: DecodeProcess, request: CopyRequest) -> CopyOutcome:
        self.transcoded_videos += 1
        with writing(request.copy), published(request.copy) as partial:
            *_, (_, payload) = child.ask(_copy_message("transcode", request, partial))
            answer = json.loads(payload)
            if refusal := answer.get("not_written"):
                raise OSError(*refusal, str(request.copy))
        return CopyOutcome(Transcoded(**answer["transcoded"]), found=False, seconds=0.0)


def _copy_message(operation: str, request: CopyRequest, copy: Path) -> dict[str, Any]:
    return {"op": operation, **asdict(request), "copy": str(copy)}
