"""How large a manifest gets: `python -m bench.manifest_size 100000 367` plans made-up videos of so many clips each."""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from bench.synthetic import ProbesAtOnce, synthetic_videos
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.extract.apply import apply_changes
from dynaprop.pipeline.extract.changes import compare
from dynaprop.pipeline.store.manifest import Manifest


@dataclass(frozen=True)
class ManifestSize:
    """A manifest of videos that are all alike, one clip a second; memory is that of a process without torch."""

    videos: int
    clips: int
    """Of each video."""
    plan: float
    """Seconds to compare the disk with nothing, pack all videos and save as extraction does; probes are given."""
    plan_mib: float
    """Peak memory of it."""
    load: float
    """Seconds to read it again, as the next extraction does."""
    load_mib: float
    """Peak memory of that, in a process of its own."""


def extrapolate(sizes: Sequence[ManifestSize], what: str, *, videos: int, clips: float) -> float:
    """A figure for more videos, on straight lines.

    Args:
        sizes: few videos of few clips, many of few, many of many.
        what: name of the figure.
        videos, clips: so many of so many each.
    """
    low, many, long = (getattr(size, what) for size in sizes)
    more = (clips - sizes[1].clips) / (sizes[2].clips - sizes[1].clips)
    times = (videos - sizes[0].videos) / (sizes[1].videos - sizes[0].videos)
    return float(low + times * (many - low) + more * (long - many) * videos / sizes[1].videos)


def measure_manifest(videos: int, clips: int) -> ManifestSize:
    """Plan in a process of its own, whose peak memory is that of the plan."""
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else __spec__.name, str(videos), str(clips)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return ManifestSize(**json.loads(done.stdout))


def _plan(folder: Path, videos: int, clips: int) -> ManifestSize:
    dataset = DatasetSpec(name="synthetic", root=folder)
    listed = synthetic_videos(folder, videos)
    path = folder / "manifest.parquet"
    began = time.perf_counter()
    empty = Manifest.empty(shard_rows=dataset.shard_rows)
    for manifest in apply_changes(
        empty,
        compare(empty, listed, root=folder),
        pool=cast(DecodePool, ProbesAtOnce(clips)),
        root=folder,
        clip_seconds=dataset.clip_seconds,
        min_clips=dataset.min_clips,
        max_clips=dataset.max_clips,
    ):
        manifest.save(path)
    plan = time.perf_counter() - began
    done = subprocess.run([sys.executable, "-m", __spec__.name, str(path)], check=True, capture_output=True, text=True)
    load, load_mib = json.loads(done.stdout)
    return ManifestSize(videos, clips, plan, _peak_mib(), load, load_mib)


def _load(path: Path) -> tuple[float, float]:
    began = time.perf_counter()
    Manifest.load(path, shard_rows=DatasetSpec(name="synthetic", root=path).shard_rows)
    return time.perf_counter() - began, _peak_mib()


def _peak_mib() -> float:
    """Of this program alone: what getrusage says begins with the memory of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) / 1024


def main() -> None:
    if len(sys.argv) == 2:
        print(json.dumps(_load(Path(sys.argv[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="dynaprop-bench-") as folder:
        print(json.dumps(asdict(_plan(Path(folder), int(sys.argv[1]), int(sys.argv[2])))))


if __name__ == "__main__":
    main()
