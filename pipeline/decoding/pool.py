"""A pool of decode children: parallel decoding that can neither hang nor take the run down with it."""

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from dynaprop.pipeline.decoding.child import CLIP_INDEX
from dynaprop.pipeline.decoding.process import ChildLost, DecodeProcess
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.atomic import published, writing
from dynaprop.pipeline.machine import usable_cores
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import FrameRequest
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.identity import Stamp
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.transcode import Transcoded

_FRAMES_AHEAD = 64  # decoded frames held a video: bounds memory whatever the video's length
_MEMORY = 2 * 2**30  # bytes a child; an 8K H.264 file with all its reference frames fits
_FAILURES = 2  # of one decoder on one video, until another one is tried
_LOSSES = 4  # children ended from outside during one video, until it is given up
_CONCLUSIVE = ("mismatch", "missing_frames", "memory")  # the same decoder would say the same again


@dataclass(frozen=True)
class DecodeOutcome:
    """How the decoding of one video ended."""

    decoder: str
    attempts: int
    seconds: float
    """Wall time from request to last frame."""
    error: VideoError | None = None
    missing: tuple[int, ...] = ()
    """Clips whose frames cannot be had, where the others can."""


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


Answer = TypeVar("Answer")
_Item = tuple[int, list[np.ndarray]] | DecodeOutcome | BaseException


class DecodedVideo:
    """The stream of one video's frames, filled by a pool thread and read by the model's loop."""

    def __init__(self, stopped: threading.Event) -> None:
        self._frames: queue.Queue[_Item] = queue.Queue(_FRAMES_AHEAD)
        self._stopped = stopped
        self._newest = ("", -1)  # decoder and clip
        self.outcome: DecodeOutcome | None = None

    def put_frames(self, clip: int, frames: list[np.ndarray], decoder: str) -> None:
        """Hand over a clip, unless the same decoder has given it before its child was lost.

        So a lost child changes neither the batches behind it nor the last bits of their features.
        """
        if decoder != self._newest[0] or clip > self._newest[1]:
            self._newest = decoder, clip
            self.put((clip, frames))

    def put(self, item: _Item) -> None:
        """Hand over a clip, the outcome or what broke; waits while the reader is behind."""
        while not self._stopped.is_set():
            try:
                return self._frames.put(item, timeout=0.1)
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yield ``(clip, [frame a size])``; afterwards ``outcome`` is set.

        Clips come in order, and from the beginning anew where a decoder failed half-way and another one took over:
        the last one counts.
        """
        while True:
            try:
                item = self._frames.get(timeout=0.5)
            except queue.Empty:
                if self._stopped.is_set():
                    raise DynapropError("the decode pool was closed while it was read") from None
                continue
            if isinstance(item, DecodeOutcome):
                self.outcome = item
                return
            if isinstance(item, BaseException):
                raise item
            yield item


class DecodePool:
    """Children that probe and decode videos in parallel, answers in the order of the requests.

    Args:
        workers: child processes; the machine's cores by default.
        deadline: seconds without a new frame after which a video is given up as ``timeout``.
        memory: bytes that a child may allocate; a video that needs more fails with ``memory``.
        in_full: probe and read files by decoding all of their frames, to compare with what the faster way gives.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        deadline: float = 60.0,
        memory: int = _MEMORY,
        in_full: bool = False,
    ) -> None:
        self.workers = workers or usable_cores()
        self.deadline = deadline
        self.in_full = in_full
        self.decoded_videos = 0
        """Videos that decoding was begun for."""
        self.transcoded_videos = 0
        """Videos that a copy was begun of."""
        self._children: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
        self._all = [DecodeProcess(deadline=deadline, memory=memory) for _ in range(self.workers)]
        for child in self._all:
            self._children.put(child)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        self._stopped = threading.Event()
        self._closing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop all work and end the children; from any thread."""
        self._stopped.set()
        with self._closing:
            for child in self._all:
                child.interrupt()  # wakes the thread that waits for it
            self._threads.shutdown(wait=True, cancel_futures=True)
            for child in self._all:
                child.kill()

    def start(self) -> None:
        """Let the children start while the caller does something else; what goes wrong shows with the first video."""
        for _ in self._all:
            self._threads.submit(self._start_one)

    def probe(
        self, paths: Iterable[str], folders: Iterable[FrameFolder | None] | None = None
    ) -> Iterator[Probe | VideoError]:
        """Probe videos; one answer a path, in order.

        Args:
            paths: files, or folders of pictures.
            folders: for each path None, or how the pictures of the folder are named; all are files by default.
        """
        pairs = ((path, None) for path in paths) if folders is None else zip(paths, folders, strict=True)
        return self._spread(self._probe_one, pairs)

    def read_alike(self, probes: Iterable[tuple[str, Probe]]) -> Iterator[tuple[str, ...]]:
        """Decoders by which earlier versions read the same frames of each file; none where there is no telling.

        Args:
            probes: paths of files, and what is known of them today.
        """
        return self._spread(self._read_alike_one, probes)

    def decode(
        self, requests: Iterable[FrameRequest], sizes: list[int], decoders: Iterable[str]
    ) -> Iterator[DecodedVideo]:
        """Decode videos; one stream a request, in order. Read each to its end before the next.

        Args:
            requests: the frames wanted of each video.
            sizes: pixels a side that every frame is resized to, where a request does not say it of each.
            decoders: first choice for each request; PyAV stands behind decord.
        """
        pending: deque[DecodedVideo] = deque()
        for request, decoder in zip(requests, decoders, strict=True):
            video = DecodedVideo(self._stopped)
            self._threads.submit(self._decode_one, request, sizes, decoder, video)
            pending.append(video)
            if len(pending) > self.workers:
                yield pending.popleft()
        while pending:
            yield pending.popleft()

    def transcode(self, requests: Iterable[CopyRequest]) -> Iterator[CopyOutcome | VideoError]:
        """Make copies; one answer a request, in order. A copy appears under its name when it is whole and verified.

        Raises:
            DynapropError: a copy cannot be written: the disk is full or read-only.
        """
        return self._spread(self._transcode_one, ((request,) for request in requests))

    def _spread(self, work: Callable[..., Answer], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Answer]:
        """Do some work for each of the arguments, some of them ahead; the answers come in order."""
        pending: deque[Future[Answer]] = deque()
        for one in arguments:
            pending.append(self._threads.submit(work, *one))
            if len(pending) > 4 * self.workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _start_one(self) -> None:
        child = self._children.get()
        try:
            child.start()
        except DynapropError:  # it is tried again when it is needed, and said then
            pass
        finally:
            self._children.put(child)

    def _probe_one(self, path: str, folder: FrameFolder | None) -> Probe | VideoError:
        child = self._children.get()
        began = time.monotonic()
        request = {"op": "probe", "path": path, "folder": folder and asdict(folder), "by_decoding": self.in_full}
        lost = failures = 0
        try:
            while True:
                try:
                    *_, (_, payload) = child.ask(request)
                    answer = json.loads(payload)
                    answer["timestamps"] = np.array(answer["timestamps"], np.float64)
                    return Probe(**answer | {"seconds": time.monotonic() - began})
                except VideoError as error:
                    return error
                except ChildLost as error:
                    lost += error.from_outside
                    failures += not error.from_outside
                    if lost == _LOSSES or failures == _FAILURES or self._stopped.is_set():
                        return VideoError("crash", f"while probing: {error}")
        finally:
            self._children.put(child)

    def _read_alike_one(self, path: str, probe: Probe) -> tuple[str, ...]:
        child = self._children.get()
        try:
            *_, (_, payload) = child.ask({"op": "read_alike", "path": path, "stream": probe.stream})
            return tuple(json.loads(payload)["decoders"])
        except (VideoError, ChildLost):
            return ()
        finally:
            self._children.put(child)

    def _decode_one(self, request: FrameRequest, sizes: list[int], decoder: str, video: DecodedVideo) -> None:
        child = self._children.get()
        began = time.monotonic()
        attempts = lost = failures = 0
        self.decoded_videos += 1
        if self.in_full and decoder != "frames":
            decoder = "full"
        behind = ["pyav"] if decoder == "decord" else []
        error = VideoError("crash", "not attempted")
        try:
            while not self._stopped.is_set():
                attempts += 1
                try:
                    missing = self._stream(child, request, sizes, decoder, video)
                    return video.put(DecodeOutcome(decoder, attempts, time.monotonic() - began, missing=missing))
                except ChildLost as loss:
                    error = VideoError("crash", f"{decoder}: {loss}")
                    if loss.from_outside:  # what decodes the video must not depend on who kills whom
                        lost += 1
                        if lost < _LOSSES:
                            continue
                        break
                except VideoError as failure:
                    error = failure
                    if error.kind == "timeout" and not behind:
                        break
                failures += 1
                if failures == _FAILURES or error.kind in (*_CONCLUSIVE, "timeout"):
                    if not behind:
                        break
                    decoder, failures = behind.pop(), 0
            video.put(DecodeOutcome(decoder, attempts, time.monotonic() - began, error))
        except BaseException as failure:  # not the video's fault: the reader's to deal with
            video.put(failure)
        finally:
            self._children.put(child)

    def _transcode_one(self, request: CopyRequest) -> CopyOutcome | VideoError:
        child = self._children.get()
        began = time.monotonic()
        lost = failures = 0
        try:
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
                final = error.kind in ("timeout", "changed", *_CONCLUSIVE)
                if final or lost == _LOSSES or failures == _FAILURES or self._stopped.is_set():
                    return error
        finally:
            self._children.put(child)

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

    def _stream(
        self, child: DecodeProcess, request: FrameRequest, sizes: list[int], decoder: str, video: DecodedVideo
    ) -> tuple[int, ...]:
        """Hand over the frames as they come; the clips that are missing in the end."""
        missing: tuple[int, ...] = ()
        message = asdict(request)
        message |= {"frames": request.frames.tolist(), "timestamps": request.timestamps.tolist()}
        for kind, payload in child.ask({"op": "decode", "sizes": sizes, "decoder": decoder, **message}):
            if kind == b"F":
                (clip,) = CLIP_INDEX.unpack_from(payload)
                frames, offset = [], CLIP_INDEX.size
                for size in sizes if request.clip_sizes is None else request.clip_sizes[clip]:
                    frames.append(np.frombuffer(payload, np.uint8, size * size * 3, offset).reshape(size, size, 3))
                    offset += size * size * 3
                video.put_frames(clip, frames, decoder)
            elif kind == b"D":
                missing = tuple(json.loads(payload).get("missing", ()))
        return missing


def _copy_message(operation: str, request: CopyRequest, copy: Path) -> dict[str, Any]:
    return {"op": operation, **asdict(request), "copy": str(copy)}
