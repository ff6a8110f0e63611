"""A pool of decode children: parallel decoding that can neither hang nor take the run down with it."""

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from dynaprop.pipeline.decoding.process import ChildLost, DecodeProcess
from dynaprop.pipeline.decoding.protocol import CLIP_INDEX
from dynaprop.pipeline.decoding.stream import DecodedVideo, DecodeOutcome
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.machine import usable_cores
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest

_MEMORY = 2 * 2**30  # bytes a child; an 8K H.264 file with all its reference frames fits
FAILURES = 2  # of one decoder on one video, until another one is tried
LOSSES = 4  # children ended from outside during one video, until it is given up
CONCLUSIVE = ("mismatch", "missing_frames", "memory")  # the same decoder would say the same again


Answer = TypeVar("Answer")


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
        return self.spread(self._probe_one, pairs)

    def read_alike(self, probes: Iterable[tuple[str, Probe]]) -> Iterator[tuple[str, ...]]:
        """Decoders by which earlier versions read the same frames of each file; none where there is no telling.

        Args:
            probes: paths of files, and what is known of them today.
        """
        return self.spread(self._read_alike_one, probes)

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

    @property
    def stopped(self) -> bool:
        """Whether the pool was closed."""
        return self._stopped.is_set()

    def spread(self, work: Callable[..., Answer], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Answer]:
        """Do some work for each of the arguments, some of them ahead; the answers come in order.

        Args:
            work: called with a child that is free and the arguments.
            arguments: of each call.
        """
        pending: deque[Future[Answer]] = deque()
        for one in arguments:
            pending.append(self._threads.submit(self._with_child, work, *one))
            if len(pending) > 4 * self.workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _with_child(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        child = self._children.get()
        try:
            return work(child, *arguments)
        finally:
            self._children.put(child)

    def _start_one(self) -> None:
        child = self._children.get()
        try:
            child.start()
        except DynapropError:  # it is tried again when it is needed, and said then
            pass
        finally:
            self._children.put(child)

    def _probe_one(self, child: DecodeProcess, path: str, folder: FrameFolder | None) -> Probe | VideoError:
        began = time.monotonic()
        request = {"op": "probe", "path": path, "folder": folder and asdict(folder), "by_decoding": self.in_full}
        lost = failures = 0
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
                if lost == LOSSES or failures == FAILURES or self.stopped:
                    return VideoError("crash", f"while probing: {error}")

    def _read_alike_one(self, child: DecodeProcess, path: str, probe: Probe) -> tuple[str, ...]:
        try:
            *_, (_, payload) = child.ask({"op": "read_alike", "path": path, "stream": probe.stream})
            return tuple(json.loads(payload)["decoders"])
        except (VideoError, ChildLost):
            return ()

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
                        if lost < LOSSES:
                            continue
                        break
                except VideoError as failure:
                    error = failure
                    if error.kind == "timeout" and not behind:
                        break
                failures += 1
                if failures == FAILURES or error.kind in (*CONCLUSIVE, "timeout"):
                    if not behind:
                        break
                    decoder, failures = behind.pop(), 0
            video.put(DecodeOutcome(decoder, attempts, time.monotonic() - began, error))
        except BaseException as failure:  # not the video's fault: the reader's to deal with
            video.put(failure)
        finally:
            self._children.put(child)

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
