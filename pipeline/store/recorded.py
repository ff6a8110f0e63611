"""What a row of the manifest says of its video: the file that it was, and the frames to ask for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.identity import FileIdentity, Source
from dynaprop.pipeline.video.request import FrameRequest

IDENTITY = ("size", "mtime_ns", "content", "ctime_ns")


def identity_of(row: Any) -> FileIdentity:
    """What a row, a named tuple, says of the file that its video was."""
    return FileIdentity(row.size, row.mtime_ns, row.content, row.ctime_ns)


def recorded(row: Mapping[Any, Any], root: str | Path) -> tuple[Source, FileIdentity]:
    """Where the frames of a row's video come from, and what that was.

    Args:
        row: of the manifest.
        root: folder that its path is relative to.
    """
    folder, known = frame_folder(row), FileIdentity(*(row[name] for name in IDENTITY))
    if folder is None:
        return Source(Path(root, row["path"])), known
    return Source(Path(root, row["path"]), folder, pictures_of(known, row["frames"], row["n_frames"])), known


def pictures_of(known: FileIdentity, clips: Iterable[int], n_frames: int) -> Iterable[int]:
    """Indices of the pictures of a folder that its identity is of: the first, those that clips show, and the last.

    The identities of earlier versions are of the first and the last one.
    """
    ends = {0, max(0, n_frames - 1)}
    return sorted(ends if known.content and not known.is_whole else ends.union(clips))


def decoder_of(row: Mapping[Any, Any], decoder: str = "pyav") -> str:
    """What reads a row's video: the decoder that the dataset names, or ``frames`` for a folder of pictures."""
    return decoder if pd.isna(row["picture_template"]) else "frames"


def stream_and_size(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What a row says of its video's stream and the size of its frames, as ``FrameRequest`` takes it."""
    if not pd.isna(row["picture_template"]):  # pictures may be of any size
        return {}
    stream = None if pd.isna(row["stream"]) else int(row["stream"])
    return {"stream": stream, "size": (int(row["width"]), int(row["height"]))}


def frame_folder(row: Mapping[Any, Any]) -> FrameFolder | None:
    """How the pictures of a row's video are named; None for a video file."""
    if pd.isna(row["picture_template"]):
        return None
    n_frames = row["picture_n_frames"]
    return FrameFolder(
        template=row["picture_template"],
        first=int(row["picture_first"]),
        fps=float(row["picture_fps"]),
        n_frames=None if pd.isna(n_frames) else int(n_frames),
    )


def frame_request(record: Mapping[Any, Any], root: str | Path) -> FrameRequest:
    """The frames of all clips of a manifest's row; paths are relative to the root."""
    return FrameRequest(
        path=str(Path(root, record["path"])),
        frames=np.asarray(record["frames"]),
        timestamps=np.asarray(record["timestamps"]),
        start=record["start"],
        estimated=record["estimated"],
        folder=frame_folder(record),
        **stream_and_size(record),
    )
