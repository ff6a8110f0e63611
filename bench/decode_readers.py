"""Readers of the same wanted frames, by turns in one process on one core: `python -m bench.decode_readers < JOB`.

A process of its own, since it is pinned to a core before any library counts its threads.
"""

import json
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import av
import numpy as np

from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.video.decoders import read_frames
from dynaprop.pipeline.video.probe import probe_video
from dynaprop.pipeline.video.request import FrameRequest

OURS, PROBED, CHECKED = "ours", "ours, probed first", "ours, `decoder: decord`"
FOREIGN = ("decord", "torchcodec")
CLIPS = 25

Reader = Callable[[FrameRequest], Iterable[tuple[int, np.ndarray]]]
"""From a request to ``(clip, RGB frame)``, as ``read_frames`` has it."""


@dataclass(frozen=True)
class ReaderTimes:
    """What one reader did with the files of one kind."""

    seconds: float | None
    """Of a core, for all files, the median of the repetitions; None where not all can be read."""
    ratio: float | None
    """How many times as fast ours is: the median of the ratios of each repetition."""
    equal: int
    """Wanted frames that equal, to the last bit, those of a read of all frames with PyAV's default settings."""
    remark: str
    """Why there is no time."""


def request_of(path: str) -> FrameRequest:
    """25 frames of a file, evenly spread over its seconds."""
    probe = probe_video(path)
    grid = clip_grid(probe.timestamps, probe.duration, min_clips=CLIPS, max_clips=CLIPS)
    return FrameRequest.of_file(path, probe, grid.frames)


def read_all(request: FrameRequest) -> Iterator[tuple[int, np.ndarray]]:
    """PyAV, default settings, whatever the file holds: the reference."""
    with av.open(request.path) as container:
        yield from _wanted(request, container.decode(video=0))


def _plain(request: FrameRequest) -> Iterator[tuple[int, np.ndarray]]:
    """PyAV as one would write it: all frames up to the last wanted one."""
    with av.open(request.path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for clip, frame in _wanted(request, container.decode(stream)):
            yield clip, frame
            if clip == len(request.frames) - 1:
                return


def _wanted(request: FrameRequest, frames: Iterable[av.VideoFrame]) -> Iterator[tuple[int, np.ndarray]]:
    clips = {int(index): clip for clip, index in enumerate(request.frames)}
    for index, frame in enumerate(frames):
        if index in clips:
            yield clips[index], frame.to_ndarray(format="rgb24")


def _probed_first(request: FrameRequest) -> Iterator[tuple[int, np.ndarray]]:
    return read_frames(request_of(request.path), "pyav")


def _decord(request: FrameRequest) -> Iterable[tuple[int, np.ndarray]]:
    import decord

    return enumerate(decord.VideoReader(request.path, num_threads=1).get_batch(request.frames).asnumpy())


def _torchcodec(request: FrameRequest) -> Iterable[tuple[int, np.ndarray]]:
    try:
        from torchcodec.decoders import VideoDecoder
    except (RuntimeError, OSError):  # not its ImportError, which says that it is not there itself
        raise RuntimeError("installed, but without FFmpeg's shared libraries that it could load") from None

    decoder = VideoDecoder(request.path, num_ffmpeg_threads=1, dimension_order="NHWC")
    return enumerate(decoder.get_frames_at(request.frames.tolist()).data.numpy())


READERS: dict[str, Reader] = {
    OURS: lambda request: read_frames(request, "pyav"),
    "plain PyAV": _plain,
    "decord": _decord,
    "torchcodec": _torchcodec,
    PROBED: _probed_first,
    CHECKED: lambda request: read_frames(request, "decord"),
}


def compare(paths: list[str], repetitions: int) -> tuple[int, dict[str, ReaderTimes]]:
    """Read the wanted frames of some files: once for their pixels, then by turns for the time.

    Returns:
        number of wanted frames, and what each reader did.
    """
    requests = [request_of(path) for path in paths]
    equal, remarks = dict.fromkeys(READERS, 0), dict.fromkeys(READERS, "")
    for request in requests:
        reference = dict(read_all(request))
        for name, read in READERS.items():
            found, error = _try(read, request)
            equal[name] += sum(clip in reference and np.array_equal(reference[clip], frame) for clip, frame in found)
            remarks[name] = remarks[name] or error
    usable = [name for name in READERS if not remarks[name]]
    seconds = {name: [0.0] * repetitions for name in usable}
    for repetition in range(repetitions):
        for request in requests:
            for name in usable:
                began = time.process_time()  # of all threads: other processes do not disturb it much
                deque(READERS[name](request), maxlen=0)
                seconds[name][repetition] += time.process_time() - began
    wanted = sum(len(request.frames) for request in requests)
    return wanted, {name: _times(seconds, name, equal[name], remarks[name]) for name in READERS}


def _try(read: Reader, request: FrameRequest) -> tuple[list[tuple[int, np.ndarray]], str]:
    try:
        return list(read(request)), ""
    except ImportError:
        return [], "not installed"
    except Exception as error:  # of many libraries
        return [], " ".join(str(error).split())[:100]


def _times(seconds: dict[str, list[float]], name: str, equal: int, remark: str) -> ReaderTimes:
    if name not in seconds:
        return ReaderTimes(None, None, equal, remark)
    took = ReaderTimes(statistics.median(seconds[name]), None, equal, remark)
    if OURS not in seconds:
        return took
    return replace(took, ratio=statistics.median(np.divide(seconds[name], seconds[OURS]).tolist()))


def main() -> None:
    """Answer a job ``{"kinds": [[path, ..], ..], "repetitions": n}`` with one entry for each kind."""
    pinned = hasattr(os, "sched_setaffinity")  # not on macOS
    if pinned:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    job: dict[str, Any] = json.load(sys.stdin)
    answers = []
    for paths in job["kinds"]:
        wanted, readers = compare(paths, job["repetitions"])
        answers.append({"wanted": wanted, "readers": {name: asdict(times) for name, times in readers.items()}})
    print(json.dumps({"pinned": pinned, "kinds": answers}))  # the last line, whatever libraries have printed before


if __name__ == "__main__":
    main()
