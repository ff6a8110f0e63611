"""The child process that touches video files: `python -m dynaprop.pipeline.decoding.child MEMORY`.

Requests come on stdin, answers go to stdout, as ``protocol`` says. The child ends when its stdin closes or its parent
is gone.
"""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, BinaryIO

import numpy as np

from dynaprop.pipeline.decoding.protocol import CLIP_INDEX, send
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import read_frames, resize_frame
from dynaprop.pipeline.video.earlier_rules import read_alike
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.identity import ContentHash, Stamp, file_stamp, settled
from dynaprop.pipeline.video.probe import Probe, probe_frame_folder, probe_video
from dynaprop.pipeline.video.request import FrameRequest
from dynaprop.pipeline.video.transcode import NotWritten, check_copy, transcode_video


def main() -> None:
    """Answer requests until stdin closes."""
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    end_with_parent()
    # Native libraries print to file descriptor 1; keep the answers on a private copy of it.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    send(out, b"A")  # up and running: from here on a death is a video's fault
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            answer = _OPERATIONS[request["op"]](request, out)
            send(out, b"D", json.dumps(answer).encode())
        except VideoError as error:
            send(out, b"E", json.dumps({"kind": error.kind, "detail": error.detail}).encode())
        except MemoryError:
            detail = f"more than the {memory / 2**30:g} GiB that a decode child may use"
            send(out, b"E", json.dumps({"kind": "memory", "detail": detail}).encode())
        except (OSError, ValueError) as error:
            detail = f"{type(error).__name__}: {error}"
            send(out, b"E", json.dumps({"kind": "decode", "detail": detail}).encode())


def end_with_parent() -> None:
    """End this process once its parent is gone, even while a decoder hangs and nobody reads stdin."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _probe(request: dict[str, Any], out: BinaryIO) -> dict[str, Any]:
    folder, alive = _folder(request), _sign_of_life(out)
    path = request["path"]
    if folder:
        answer = asdict(probe_frame_folder(path, folder, on_frame=alive))
    else:
        answer = asdict(_probe_file(path, by_decoding=request["by_decoding"], alive=alive))
    answer["timestamps"] = answer["timestamps"].tolist()
    return answer


def _probe_file(path: str, *, by_decoding: bool, alive: Callable[[], None]) -> Probe:
    """Probe a file and take its hash behind the demuxer, which reads all of it, so that the disk is read once."""
    stamp, digest = _stamp(path), ""
    with ContentHash(path, lambda _: alive()) as content:

        def follow(position: int) -> None:
            with suppress(OSError):  # a bad place on the disk that the video does not need
                content.follow(position)

        probe = probe_video(path, by_decoding=by_decoding, on_frame=alive, on_position=follow)
        with suppress(OSError):
            digest = content.finish()
    return replace(probe, content=digest if stamp is not None and _stamp(path) == stamp else "")


def _stamp(path: str) -> Stamp | None:
    try:
        return settled(lambda: file_stamp(path))
    except OSError:
        return None  # the probe says why


def _read_alike(request: dict[str, Any], out: BinaryIO) -> dict[str, Any]:
    return {"decoders": read_alike(request["path"], stream=request["stream"], on_frame=_sign_of_life(out))}


def _decode(request: dict[str, Any], out: BinaryIO) -> dict[str, Any]:
    frame_request = FrameRequest(
        path=request["path"],
        frames=np.array(request["frames"], np.int64),
        timestamps=np.array(request["timestamps"], np.float64),
        start=request["start"],
        estimated=request["estimated"],
        folder=_folder(request),
        stream=request["stream"],
        size=request["size"] and tuple(request["size"]),
    )
    missing = set(range(len(frame_request.frames)))
    for clip, frame in read_frames(frame_request, request["decoder"], on_frame=_sign_of_life(out)):
        sizes = request["sizes"] if request["clip_sizes"] is None else request["clip_sizes"][clip]
        send(out, b"F", CLIP_INDEX.pack(clip), *(resize_frame(frame, size).tobytes() for size in sizes))
        missing.discard(clip)
    return {"missing": sorted(missing)}


def _check_copy(request: dict[str, Any], out: BinaryIO) -> dict[str, Any]:
    found = check_copy(request["path"], request["copy"], tag=request["tag"], on_frame=_sign_of_life(out))
    return {"transcoded": found and asdict(found)}


def _transcode(request: dict[str, Any], out: BinaryIO) -> dict[str, Any]:
    path = request["path"]
    try:
        made = transcode_video(
            path,
            request["copy"],
            short_side=request["short_side"],
            tag=request["tag"],
            on_frame=_sign_of_life(out),
        )
    except NotWritten as refusal:
        return {"not_written": [refusal.number, refusal.reason]}
    if list(file_stamp(path)) != request["stamp"]:
        raise VideoError("changed", "while it was transcoded; the next transcoding looks again")
    return {"transcoded": asdict(made)}


_OPERATIONS: dict[str, Callable[[dict[str, Any], BinaryIO], dict[str, Any]]] = {
    "probe": _probe,
    "read_alike": _read_alike,
    "decode": _decode,
    "check_copy": _check_copy,
    "transcode": _transcode,
}


def _folder(request: dict[str, Any]) -> FrameFolder | None:
    return None if request["folder"] is None else FrameFolder(**request["folder"])


def _sign_of_life(out: BinaryIO) -> Callable[[], None]:
    """A callback that tells the parent about once a second that decoding goes on."""
    last = time.monotonic()

    def alive() -> None:
        nonlocal last
        if time.monotonic() - last > 1:
            last = time.monotonic()
            send(out, b"A")

    return alive


if __name__ == "__main__":
    main()
