"""`make bench-growth`: what planning, resuming, verifying and listing cost with 10 thousand to a million videos.

    python -m bench.growth           # half an hour; writes growth.json, growth.png and the README's line
    python -m bench.growth 10000     # one point, as JSON

The videos are made up: one file stands for all of them, their probes are given, and features are 4 channels wide. Each
point is a process of its own, so that its peak memory is its own.
"""

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np

from bench.machine import describe_machine
from bench.synthetic import ProbesAtOnce, fill_store, synthetic_videos
from dynaprop.flows.commands.datasets import print_datasets
from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.extract.apply import apply_changes
from dynaprop.pipeline.extract.changes import compare
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.plan import shards_to_do
from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.store.verify import verify_key

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
SIZES = (10_000, 100_000, 1_000_000)
CLIPS, CHANNELS = 25, 4
BACKBONES = [
    BackboneSpec(name="student", model="test_efficientnet", size=112, weights="random"),
    BackboneSpec(name="teacher", model="test_resnet", size=224, weights="random"),
]


@dataclass(frozen=True)
class Point:
    """Seconds of each step with so many videos."""

    videos: int
    shards: int
    plan: float
    """Compare the disk with an empty manifest, pack all videos, save as extraction does, list the shards to do."""
    plan_mib: float
    """Peak memory up to here, the interpreter and torch (some 400 MiB) included."""
    resume: float
    """An extraction that finds everything done: compare, plan, summary."""
    verify: float
    """Every ledger row and checksum of both branches, 8 bytes a clip."""
    list: float
    """`dynaprop datasets`."""


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(asdict(measure(int(sys.argv[1])))))
        return
    points = []
    for size in SIZES:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, str(size)], check=True, capture_output=True, text=True
        )
        points.append(json.loads(done.stdout.splitlines()[-1]))
        print(points[-1], flush=True)
    (HERE / "growth.json").write_text(
        json.dumps({"machine": describe_machine(), "points": points}, indent=1) + "\n", encoding="utf-8"
    )
    _plot(points)
    _write_readme(points)


def measure(size: int) -> Point:
    """One point of the curves."""
    with tempfile.TemporaryDirectory(prefix="dynaprop-bench-") as name:
        home = Path(name)
        dataset = DatasetSpec(name="synthetic", root=home / "videos")
        videos = synthetic_videos(dataset.root, size)
        annotations = Annotations(videos=videos, class_names=tuple(map(str, range(100))))
        store = open_store(dataset, home)

        began = time.perf_counter()
        empty = store.manifest()
        for manifest in apply_changes(
            empty,
            compare(empty, videos, root=dataset.root),
            pool=cast(DecodePool, ProbesAtOnce(CLIPS)),
            root=dataset.root,
            clip_seconds=dataset.clip_seconds,
            min_clips=dataset.min_clips,
            max_clips=dataset.max_clips,
        ):
            manifest.save(store.manifest_path)
        shards_to_do(store, manifest, ["student", "teacher"])
        plan = time.perf_counter() - began
        plan_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        with Extraction(
            dataset=dataset, annotations=annotations, backbones=BACKBONES, home=home, device="cpu"
        ) as extraction:
            keys = [key for key, _ in extraction.backbones.values()]
        rows = np.random.default_rng(0).standard_normal((store.shard_rows, CHANNELS)).astype(np.float16)
        fill_store(store, keys, manifest, channels=CHANNELS, rows=rows)
        shards = manifest.n_shards
        del manifest, store

        began = time.perf_counter()
        with Extraction(
            dataset=dataset, annotations=annotations, backbones=BACKBONES, home=home, device="cpu"
        ) as extraction:
            work = extraction.plan(extraction.changes())
            summary = extraction.summary()
        resume = time.perf_counter() - began
        assert not work.shards and summary.usable == size

        began = time.perf_counter()
        store = open_store(dataset, home, read_only=True)
        checks = [verify_key(store, key.name) for key in keys]
        verify = time.perf_counter() - began
        assert not any(check.problems for check in checks)

        began = time.perf_counter()
        print_datasets(load_catalog(), home)
        return Point(size, shards, plan, plan_mib, resume, verify, time.perf_counter() - began)


def _plot(points: list[dict[str, Any]]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    sizes = [point["videos"] for point in points]
    for step in ("plan", "resume", "verify", "list"):
        axes.loglog(sizes, [point[step] for point in points], marker="o", label=step)
    axes.loglog(sizes, [1e-5 * size for size in sizes], color="grey", linestyle=":", label="10 µs a video")
    axes.set(xlabel="videos", ylabel="seconds")
    axes.legend(frameon=False)
    figure.savefig(HERE / "growth.png", dpi=150)


def _write_readme(points: list[dict[str, Any]]) -> None:
    lines = ["| videos | shards | plan | resume | verify | list | memory of the plan |", "| ---: |" + " ---: |" * 6]
    for point in points:
        steps = " | ".join(f"{point[step]:.1f} s" for step in ("plan", "resume", "verify", "list"))
        lines.append(f"| {point['videos']:,} | {point['shards']:,} | {steps} | {point['plan_mib']:.0f} MiB |")
    section = "\n".join(["<!-- growth -->", *lines, "<!-- /growth -->"])
    readme = HERE.parent / "README.md"
    text = re.sub(
        "<!-- growth -->.*<!-- /growth -->", lambda _: section, readme.read_text(encoding="utf-8"), flags=re.S
    )
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
