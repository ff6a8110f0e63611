"""Peak memory of an extraction, all its processes together, does not grow with a video's length or size."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.store.names import open_store
from tests.conftest import REPOSITORY
from tests.test_kill import session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ALLOWED = 300 * 2**20  # bytes more than an extraction of a small, short video
HOURS = 3

# An extraction on the default clip grid, with small backbones at the sizes of the default recipe.
PROGRAM = """
import sys
from pathlib import Path
import torch
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from tests.extract_process import BACKBONES
torch.set_num_threads(1)
spec = DatasetSpec(name="measured", root=Path(sys.argv[1]))
annotations = read_annotations(spec)
with Extraction(
    dataset=spec,
    annotations=annotations,
    backbones=BACKBONES,
    home=Path(sys.argv[2]),
    device="cpu",
    workers=2,
    deadline=5,
) as work:
    for shard in work.plan(work.changes()).shards:
        work.extract_shard(shard)
"""


def moving_pictures(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Coarse noise that drifts, so that frames are neither empty nor incompressible."""
    width, height = size
    coarse = np.random.default_rng(0).integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    picture = np.repeat(np.repeat(coarse, 16, 0), 16, 1)[:height, :width]
    return [np.ascontiguousarray(np.roll(picture, 3 * index, 1)) for index in range(count)]


def encode(
    path: Path,
    *,
    codec: str,
    size: tuple[int, int],
    frames: int,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """A video at 25 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = moving_pictures(size, 8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for index in range(frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(pictures[index % 8], format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def repeat(source: Path, path: Path, *, times: int) -> Path:
    """A video whose packets are those of another one, again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        stream = read.streams.video[0]
        packets = [
            (bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in read.demux(stream) if packet.size
        ]
        base = stream.time_base
        assert base is not None
        a_round = int(Fraction(len(packets), 25) / base)
        copy = write.add_stream_from_template(stream)
        for turn in range(times):
            for data, pts, dts, key in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts = pts + turn * a_round, dts + turn * a_round
                packet.time_base, packet.stream, packet.is_keyframe = base, copy, key
                write.mux(packet)
    return path


def write_short(folder: Path) -> Path:
    return encode(folder / "short.mp4", codec="libx264", size=(426, 240), frames=250)


def write_long(folder: Path) -> Path:
    minute = encode(folder.parents[1] / "minute.mp4", codec="libx264", size=(128, 96), frames=1500)
    return repeat(minute, folder / "long.mp4", times=60 * HOURS)


def write_long_avi(folder: Path) -> Path:
    """Only decoding tells the frames of this codec, so the probe decodes all of it."""
    minute = encode(folder.parents[1] / "minute.avi", codec="mpeg4", size=(128, 96), frames=1500)
    return repeat(minute, folder / "long.avi", times=60 * HOURS)


def write_4k(folder: Path) -> Path:
    return encode(folder / "4k.mp4", codec="libx264", size=(3840, 2160), frames=75)


def write_4k_moment(folder: Path) -> Path:
    return encode(folder / "moment.mp4", codec="libx264", size=(3840, 2160), frames=4)


def write_hd_moment(folder: Path) -> Path:
    return encode(folder / "moment.mp4", codec="libx264", size=(1920, 1080), frames=16)


def write_4k_mjpeg(folder: Path) -> Path:
    return encode(folder / "4k.avi", codec="mjpeg", size=(3840, 2160), frames=50, pix_fmt="yuvj420p")


def write_4k_vp9(folder: Path) -> Path:
    options = {"deadline": "realtime", "cpu-used": "8"}
    return encode(folder / "4k.webm", codec="libvpx-vp9", size=(3840, 2160), frames=50, options=options)


def memory_of(pid: int) -> int:
    """Proportional set size of one process in bytes: what it shares with others is divided among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@dataclass(frozen=True)
class Peak:
    """Memory in bytes of an extraction's processes."""

    together: int
    model: int
    """Of the model's process alone, at its own peak."""
    child: int
    """Of the largest decode child, at its own peak."""


def peak_of_extraction(name: str, folder: Path) -> Peak:
    """Extract ``folder / "videos"``, one video that must succeed, and print what it took."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder / "videos"), str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
    )
    together = model = child = 0
    while process.poll() is None:
        now = {pid: memory_of(pid) for pid in session(process.pid)}
        together = max(together, sum(now.values()))
        model = max(model, now.pop(process.pid, 0))
        child = max([child, *now.values()])
        time.sleep(0.05)
    assert process.returncode == 0
    seconds = time.monotonic() - began
    store = open_store(DatasetSpec(name="measured", root=folder / "videos"), folder)
    for key in sorted(store.keys()):
        (row,) = store.ledger(key).read().to_dict("records")
        assert row["status"] == "ok", row["error_detail"]
    print(
        f"{name}: peak {together / 2**20:.0f} MiB (model {model / 2**20:.0f}, largest child {child / 2**20:.0f}); "
        f"{row['n_clips']} clips by {row['decoder']} in {seconds:.0f} s"
    )
    return Peak(together, model, child)


@pytest.fixture(scope="module")
def short_video(tmp_path_factory) -> Peak:
    """What a small, short video takes."""
    folder = tmp_path_factory.mktemp("short")
    write_short(folder / "videos" / "class")
    return peak_of_extraction("write_short", folder)


@pytest.mark.parametrize(
    "write",
    [write_long, write_long_avi, write_4k, write_4k_moment, write_hd_moment, write_4k_mjpeg, write_4k_vp9],
)
def test_a_long_or_large_video_needs_little_more_than_a_short_one(short_video, tmp_path, write: Callable[[Path], Path]):
    """Nor does it run into a deadline of 5 seconds without a new frame."""
    write(tmp_path / "videos" / "class")
    peak = peak_of_extraction(write.__name__, tmp_path)
    assert peak.together - short_video.together <= ALLOWED
    # The model's process may hide a child's peak, which comes at another moment.
    assert peak.child - short_video.child <= ALLOWED
