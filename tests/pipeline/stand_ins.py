"""Stand-ins for decoding and backbones, and a process that dies: with them a step of extraction takes milliseconds.

A "video" is a small file of json that says how many frames it has and what is wrong with it. Its frames carry who they
are in their pixels, and a feature is what its frame carries, so that a wrong feature is seen at once.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self
from unittest import mock

import numpy as np

from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.decoding.stream import DecodeOutcome
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.identity import file_identity
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.audit import audited, unheard

CHANNELS = 6

Fault = Literal["none", "probe", "decode", "passing", "infinite"]


@dataclass(frozen=True)
class Content:
    """What a file holds."""

    serial: int
    """Another one for every content."""
    frames: int
    fault: Fault = "none"
    """``passing`` fails as ``decode`` does, until whatever is the matter with the machine is over."""

    def write(self, path: Path, *, time: int) -> None:
        """Write the file, ``time`` seconds after the epoch."""
        path.write_text(json.dumps(asdict(self)))
        os.utime(path, (time, time))

    @classmethod
    def read(cls, path: Path) -> "Content":
        return cls(**json.loads(path.read_text()))

    def feature(self, frame: int, key: FeatureKey) -> np.ndarray:
        """The feature of one frame, ``[CHANNELS]`` float16."""
        return _feature(self._pixels(frame), key.size).astype(np.float16)

    def picture(self, frame: int, size: int) -> np.ndarray:
        """One frame, ``[size, size, 3]`` uint8."""
        picture = np.zeros((size, size, 3), np.uint8)
        picture[0, 0], picture[0, 1] = self._pixels(frame)
        return picture

    def _pixels(self, frame: int) -> np.ndarray:
        return np.array([(*divmod(self.serial, 256), frame), (self.fault == "infinite", 1, 2)], np.uint8)


class StandInPool:
    """Takes the place of ``DecodePool``.

    Args:
        trouble: whether contents of the fault ``passing`` fail.
    """

    workers = 1

    def __init__(self, *, trouble: bool = False) -> None:
        self.trouble = trouble
        self.decoded_videos = 0

    def close(self) -> None:
        pass

    def probe(
        self, paths: Iterable[str], folders: Iterable[FrameFolder | None] | None = None
    ) -> Iterator[Probe | VideoError]:
        for path in paths:
            content = Content.read(Path(path))
            if content.fault == "probe":
                yield VideoError("unreadable", "a stand-in that is no video")
            else:
                times = np.arange(content.frames, dtype=np.float64)
                length, whole = float(content.frames), file_identity(path).content
                yield Probe(times, 0.0, length, False, 64, 48, "h264", "mov,mp4", "decord", content=whole)

    def decode(
        self, requests: Iterable[FrameRequest], sizes: list[int], decoders: Iterable[str]
    ) -> Iterator["StandInVideo"]:
        for request, decoder in zip(requests, decoders, strict=True):
            self.decoded_videos += 1
            yield StandInVideo(request, sizes, decoder, trouble=self.trouble)


class StandInVideo:
    """Takes the place of ``DecodedVideo``: a broken one fails half-way."""

    def __init__(self, request: FrameRequest, sizes: Sequence[int], decoder: str, *, trouble: bool) -> None:
        self._content = Content.read(Path(request.path))
        self._frames = request.frames.tolist()
        self._sizes = sizes
        self._fails = self._content.fault == "decode" or (self._content.fault == "passing" and trouble)
        self._decoder = decoder
        self.outcome: DecodeOutcome | None = None

    def __iter__(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        frames = self._frames[: len(self._frames) // 2] if self._fails else self._frames
        for clip, frame in enumerate(frames):
            yield clip, [self._content.picture(frame, size) for size in self._sizes]
        error = VideoError("decode", "a stand-in that breaks off") if self._fails else None
        self.outcome = DecodeOutcome(self._decoder, 1, 0.0, error)


class StandInBackbone:
    """Takes the place of ``FrameBackbone``."""

    channels = CHANNELS

    def __init__(self, *, key: FeatureKey, **_: Any) -> None:
        self.key = key

    def start(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        features = np.stack([_feature(frame[0, :2], self.key.size) for frame in frames])
        return lambda: features


def _feature(pixels: np.ndarray, size: int) -> np.ndarray:
    """The feature of the first two pixels of a frame, ``[2, 3]``; zero, as of an empty frame, is no feature."""
    feature = np.array([*pixels[0], pixels[1, 1], size, 1], np.float32)
    return np.full_like(feature, np.inf) if pixels[1, 0] else feature


class Killed(BaseException):
    """The process died here."""


class Mortal:
    """Dies at a step of writing below a folder, and from then on does not touch it: no clean-up, as by SIGKILL.

    The steps are what Python does there: open a file to write, rename, link, delete, make a folder, fsync (which is not
    done for real, to save time).

    Args:
        folder: the folder.
        steps: how many steps go well; None for ever.
        torn: the file that was opened last has been written by half, where it is still under that name.
    """

    def __init__(self, folder: Path, *, steps: int | None = None, torn: bool = False) -> None:
        self.taken = 0
        self._folder = f"{os.path.realpath(folder)}{os.sep}"
        self._steps = steps
        self._torn = torn
        self._opened: Path | None = None
        self._life = ExitStack()

    def __enter__(self) -> Self:
        self._life.enter_context(audited(self._hear))
        self._life.enter_context(mock.patch("os.fsync", lambda _: self.step("os.fsync", self._folder)))
        return self

    def __exit__(self, *_: object) -> None:
        self._life.close()

    def step(self, event: str, path: str) -> None:
        """Called before every step.

        Raises:
            Killed: this one is not taken.
        """
        if not path.startswith(self._folder):
            return
        if self._steps is not None and self.taken >= self._steps:
            if self.taken == self._steps and self._torn and self._opened:
                _cut(self._opened)
            self.taken += 1
            raise Killed(f"at {event} of {path}")
        self.taken += 1
        if event == "open":
            self._opened = Path(path)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & _WRITING and not isinstance(arguments[0], int):
            self.step(event, _absolute(arguments[0], -1))
        elif event in _STEPS:
            self.step(event, _absolute(arguments[0], arguments[_STEPS[event]]))


# Audit events, with the index of the argument that tells the folder of a relative path.
_STEPS = {"os.rename": 2, "os.link": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 2}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _absolute(path: Any, folder: int) -> str:
    start = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()
    return str(start / os.fsdecode(path))


def _cut(path: Path) -> None:
    with unheard():
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
