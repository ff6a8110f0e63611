"""Videos of real pictures of which some in the middle change, and neither size, nor ends, nor modification time."""

import hashlib
import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pandas as pd

from dynaprop.pipeline.store.feature_store import FeatureStore

EDGE = 2**16  # bytes of head and tail, which earlier versions looked at


def write_raw(source: Path, target: Path, *, frames: int = 40) -> Path:
    """The first frames of a video as uncompressed AVI, in which any byte of a picture may be another."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = written.add_stream("rawvideo", rate=10)
        shown = read.streams.video[0]
        stream.width, stream.height, stream.pix_fmt = shown.width, shown.height, "yuv420p"
        for number, frame in enumerate(read.decode(video=0)):
            if number == frames:
                break
            picture = frame.reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            written.mux(stream.encode(picture))
        written.mux(stream.encode(None))
    return target


def repaint(path: Path, *, keep_time: bool = True) -> None:
    """Turn the pictures between the outer 64 KiB into their negatives."""
    with av.open(str(path)) as video:
        places = [(packet.pos, packet.size) for packet in video.demux(video=0) if packet.size]
    status, data = path.stat(), bytearray(path.read_bytes())
    inner = [(first, size) for first, size in places if first > EDGE and first + size + 8 < len(data) - EDGE]
    assert len(inner) > 5
    assert all(first + size <= second for (first, size), (second, _) in pairwise(places))
    for first, size in inner:
        picture = slice(first + 64, first + size - 64)  # clear of the chunk's header, wherever the place points to
        data[picture] = bytes(255 - byte for byte in data[picture])
    before = path.read_bytes()
    assert (data[:EDGE], data[-EDGE:], len(data)) == (before[:EDGE], before[-EDGE:], len(before))
    assert data != before
    with path.open("r+b") as file:  # the same file: another inode would be another sign
        file.write(data)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_mtime_ns == status.st_mtime_ns


def earlier_content(path: Path) -> str:
    """What earlier versions noted of a file's bytes."""
    data = path.read_bytes()
    edges = data[:EDGE] + data[max(0, len(data) - EDGE) :]
    return hashlib.sha256(str(len(data)).encode() + edges).hexdigest()[:32]


def make_earlier(manifest: Path, root: Path) -> None:
    """Rewrite a manifest of files as an earlier version would have written it."""
    table = pd.read_parquet(manifest).drop(columns="ctime_ns")
    table["content"] = [earlier_content(root / path) for path in table["path"]]
    table.to_parquet(manifest)


def known_contents(store: FeatureStore) -> dict[str, str]:
    """Hash of all bytes of each video that a store knows one of."""
    return {video: identity.content for video, identity in store.manifest().identities().items()}
