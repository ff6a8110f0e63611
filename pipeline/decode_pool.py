"""A pool of decode children: parallel decoding that can neither hang nor take the run down with it."""

import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.cores import usable_cores
from pipeline.decode import FrameRequest
from pipeline.decode_child import CLIP_INDEX, HEADER
from pipeline.errors import DynapropError
from pipeline.frame_folder import FrameFolder
from pipeline.probe import Probe
from pipeline.video import VideoError

_FRAMES_AHEAD = 64  # decoded frames held a video: bounds memory whatever the video's length


class ChildLost(Exception):
    """The child process died while it worked on a video."""


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


class DecodeChild:
    """One child process and its pipes.

    Args:
        deadline: seconds without a message after which the child counts as hung.
    """

    def __init__(self, *, deadline: float) -> None:
        self.deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
        """Send a request and yield its messages ``(kind, payload)``; the last one is ``D``.

        Raises:
            VideoError: as the child reported it, or ``timeout``; a hung child is killed.
            ChildLost: the child died while it worked.
            DynapropError: no child could be started.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            while True:
                kind, length = HEADER.unpack(self._read(HEADER.size))
                payload = self._read(length)
                if kind == b"E":
                    raise VideoError(**json.loads(payload))
                yield kind, payload
                if kind == b"D":
                    return
        except BrokenPipeError:
            self.kill()
            raise ChildLost("the decode child is gone") from None
        except GeneratorExit:
            self.kill()  # an abandoned answer would be taken for the next one's
            raise

    def kill(self) -> None:
        """End the child at once and reap it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        # PYTHONPATH: the child finds this very package wherever it runs from.
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.decode_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            process_group=0,  # Ctrl-C reaches the parent alone, which then ends its children
        )
        try:
            self._read(HEADER.size)  # its first sign of life
        except (ChildLost, VideoError) as error:
            raise DynapropError(f"a decode process cannot be started: {error}") from None
        return self._process

    def _read(self, length: int) -> bytes:
        """Read exactly so many bytes; the deadline counts only while nothing comes."""
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        parts = bytearray()
        while len(parts) < length:
            if not select.select([pipe], [], [], self.deadline)[0]:
                self.kill()
                raise VideoError("timeout", f"no new frame within {self.deadline:g} s")
            data = os.read(pipe, min(length - len(parts), 1 << 20))
            if not data:
                self.kill()
                raise ChildLost("the decode child died")
            parts += data
        return bytes(parts)


_Item = tuple[int, list[np.ndarray]] | DecodeOutcome | BaseException


class DecodedVideo:
    """The stream of one video's frames, filled by a pool thread and read by the model's loop."""

    def __init__(self, stopped: threading.Event) -> None:
        self._frames: queue.Queue[_Item] = queue.Queue(_FRAMES_AHEAD)
        self._stopped = stopped
        self.outcome: DecodeOutcome | None = None

    def put(self, item: _Item) -> None:
        """Hand over a frame, the outcome or what broke; waits while the reader is behind."""
        while not self._stopped.is_set():
            try:
                return self._frames.put(item, timeout=0.1)
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yield ``(clip, [frame a size])``; afterwards ``outcome`` is set.

        A clip may come twice, when a decoder failed half-way and another one began anew: the last one counts.
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
    """

    def __init__(self, *, workers: int | None = None, deadline: float = 60.0) -> None:
        self.workers = workers or usable_cores()
        self.deadline = deadline
        self.decoded_videos = 0
        """Videos that decoding was begun for."""
        self._children: queue.SimpleQueue[DecodeChild] = queue.SimpleQueue()
        self._all = [DecodeChild(deadline=deadline) for _ in range(self.workers)]
        for child in self._all:
            self._children.put(child)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop all work and end the children."""
        self._stopped.set()
        for child in self._all:
            if child._process is not None:
                child._process.kill()  # wakes the thread that waits for it
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._all:
            child.kill()

    def probe(
        self, paths: Iterable[str], folders: Iterable[FrameFolder | None] | None = None
    ) -> Iterator[Probe | VideoError]:
        """Probe videos; one answer a path, in order.

        Args:
            paths: files, or folders of pictures.
            folders: for each path None, or how the pictures of the folder are named; all are files by default.
        """
        pending: deque[Future[Probe | VideoError]] = deque()
        pairs = ((path, None) for path in paths) if folders is None else zip(paths, folders, strict=True)
        for path, folder in pairs:
            pending.append(self._threads.submit(self._probe_one, path, folder))
            if len(pending) > 4 * self.workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def decode(
        self, requests: Iterable[FrameRequest], sizes: list[int], decoders: Iterable[str]
    ) -> Iterator[DecodedVideo]:
        """Decode videos; one stream a request, in order. Read each to its end before the next.

        Args:
            requests: the frames wanted of each video.
            sizes: pixels a side, the sizes that every frame is resized to.
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

    def _probe_one(self, path: str, folder: FrameFolder | None) -> Probe | VideoError:
        child = self._children.get()
        request = {"op": "probe", "path": path, "folder": folder and asdict(folder)}
        try:
            for attempt in (1, 2):
                try:
                    *_, (_, payload) = child.ask(request)
                    answer = json.loads(payload)
                    answer["timestamps"] = np.array(answer["timestamps"], np.float64)
                    return Probe(**answer)
                except VideoError as error:
                    return error
                except ChildLost as error:
                    if attempt == 2:
                        return VideoError("crash", f"while probing: {error}")
            raise AssertionError("unreachable")
        finally:
            self._children.put(child)

    def _decode_one(self, request: FrameRequest, sizes: list[int], decoder: str, video: DecodedVideo) -> None:
        child = self._children.get()
        began = time.monotonic()
        attempts = 0
        self.decoded_videos += 1
        # A decoder is given up after its second failure, or at once where it contradicts the probe.
        plan = deque([decoder, decoder] + (["pyav", "pyav"] if decoder == "decord" else []))
        error = VideoError("crash", "not attempted")
        try:
            while plan and not self._stopped.is_set():
                decoder = plan.popleft()
                attempts += 1
                try:
                    missing = self._stream(child, request, sizes, decoder, video)
                    return video.put(DecodeOutcome(decoder, attempts, time.monotonic() - began, missing=missing))
                except ChildLost as lost:
                    error = VideoError("crash", f"{decoder}: {lost}")
                except VideoError as failure:
                    error = failure
                    if error.kind == "timeout":
                        break
                    if error.kind in ("mismatch", "missing_frames"):
                        plan = deque(other for other in plan if other != decoder)
            video.put(DecodeOutcome(decoder, attempts, time.monotonic() - began, error))
        except BaseException as failure:  # not the video's fault: the reader's to deal with
            video.put(failure)
        finally:
            self._children.put(child)

    def _stream(
        self, child: DecodeChild, request: FrameRequest, sizes: list[int], decoder: str, video: DecodedVideo
    ) -> tuple[int, ...]:
        """Hand over the frames as they come; the clips that are missing in the end."""
        missing: tuple[int, ...] = ()
        message = asdict(request)
        message |= {"frames": request.frames.tolist(), "timestamps": request.timestamps.tolist()}
        for kind, payload in child.ask({"op": "decode", "sizes": sizes, "decoder": decoder, **message}):
            if kind == b"F":
                (clip,) = CLIP_INDEX.unpack_from(payload)
                frames, offset = [], CLIP_INDEX.size
                for size in sizes:
                    frames.append(np.frombuffer(payload, np.uint8, size * size * 3, offset).reshape(size, size, 3))
                    offset += size * size * 3
                video.put((clip, frames))
            elif kind == b"D":
                missing = tuple(json.loads(payload).get("missing", ()))
        return missing
