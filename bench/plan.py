"""What extracting a large dataset takes, from its published size and what was measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.manifest_size import ManifestSize, extrapolate
from dynaprop.pipeline.backbones.timm_networks import channels, gmacs_per_frame
from dynaprop.pipeline.catalog.catalog import Catalog
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.store.packing import pack

SHARD_ROWS = (2048, 16_384, 65_536)
RATE = 1000  # clips a second, for the reader's own GPUs
RECIPES = ("lite", "efficientnet", "resnet")
REQUESTS_A_SHARD = 23  # of a worker to an object store, for two branches; README, "Stores in S3"; a test counts them
_DEFAULTS = DatasetSpec(name="defaults", root=Path("/"))


@dataclass(frozen=True)
class DatasetSize:
    """A dataset as its authors describe it."""

    name: str
    videos: int
    hours: float
    equal: bool
    """Whether all videos are as long as the average; else lengths are drawn from an exponential distribution."""

    def seconds(self) -> np.ndarray:
        """[videos] length of each."""
        mean = 3600 * self.hours / self.videos
        if self.equal:
            return np.full(self.videos, mean)
        return np.random.default_rng(0).exponential(mean, self.videos)


DATASETS = (
    DatasetSize("Kinetics-700", 650_000, 650_000 * 10 / 3600, equal=True),
    DatasetSize("HowTo100M", 1_220_000, 134_472, equal=False),
)


@dataclass(frozen=True)
class Plan:
    """An extraction with so many rows a shard."""

    clips: int
    shard_rows: int
    shards: int

    @property
    def filled(self) -> float:
        """The part of the rows that holds clips."""
        return self.clips / (self.shards * self.shard_rows)

    @property
    def clips_a_shard(self) -> float:
        """On average."""
        return self.clips / self.shards

    def gigabytes(self, width: int) -> float:
        """Of features of so many channels: shards are stored whole."""
        return self.shards * self.shard_rows * width * 2 / 1e9


def plans(size: DatasetSize) -> list[Plan]:
    """The catalog's defaults and larger shards; clips are counted and packed as an extraction does."""
    natural = np.floor(size.seconds() / _DEFAULTS.clip_seconds + 1e-4).astype(int)
    counts = np.clip(natural, _DEFAULTS.min_clips, _DEFAULTS.max_clips).tolist()
    return [
        Plan(sum(counts), rows, pack(counts, first_shard=0, shard_rows=rows)[-1][0] + 1 if counts else 0)
        for rows in SHARD_ROWS
    ]


def widths(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Channels of student and teacher of each recipe."""
    pairs = {name: catalog.recipe(name) for name in RECIPES}
    both = {name: [catalog.backbone(branch) for branch in (pair.student, pair.teacher)] for name, pair in pairs.items()}
    return {
        name: (channels(student.model, student.size), channels(teacher.model, teacher.size))
        for name, (student, teacher) in both.items()
    }


def gmacs(catalog: Catalog) -> dict[str, float]:
    """Multiply-adds of a clip, both branches, in units of 1e9."""
    pairs = {name: catalog.recipe(name) for name in RECIPES}
    both = {name: [catalog.backbone(branch) for branch in (pair.student, pair.teacher)] for name, pair in pairs.items()}
    return {name: sum(gmacs_per_frame(spec.model, spec.size) for spec in specs) for name, specs in both.items()}


def shard_table(size: DatasetSize, catalog: Catalog, *, speeds: Mapping[str, Any], task_ms: float) -> list[str]:
    """The lines that depend on the rows of a shard.

    Args:
        size: of the dataset.
        catalog: with the recipes.
        speeds: ``results.json``.
        task_ms: what a task takes of the process that hands it out.
    """
    columns = plans(size)
    cpu = speeds["extraction"]["clips"] / speeds["extraction"]["extraction"]
    narrow, wide = (max(widths(catalog)[name]) for name in ("lite", "resnet"))
    rows: list[list[str]] = [
        ["shards, so task runs and chunks a branch", *(f"{plan.shards:,}" for plan in columns)],
        ["rows filled", *(f"{plan.filled:.1%}" for plan in columns)],
        *(
            [
                f"features of `{name}`, {pair[0]} + {pair[1]} channels",
                *(_tera(plan.gigabytes(sum(pair))) for plan in columns),
            ]
            for name, pair in widths(catalog).items()
        ),
        [
            f"a chunk of {narrow} or {wide} channels, MB",
            *(f"{rows * narrow * 2 / 1e6:.0f} or {rows * wide * 2 / 1e6:.0f}" for rows in SHARD_ROWS),
        ],
        [f"a shard at {cpu:.0f} clips/s, `lite` on 2 cores", *(_clock(plan.clips_a_shard / cpu) for plan in columns)],
        [f"a shard at {RATE:,} clips/s", *(_clock(plan.clips_a_shard / RATE) for plan in columns)],
        [
            f"workers of {RATE:,} clips/s that one command keeps busy",
            *(f"{plan.clips_a_shard / RATE / task_ms * 1e3:,.0f}" for plan in columns),
        ],
        ["handing out all tasks, by itself", *(_clock(plan.shards * task_ms / 1e3) for plan in columns)],
        ["requests to an object store", *(f"{plan.shards * REQUESTS_A_SHARD:,}" for plan in columns)],
    ]
    head = ["rows a shard", *(f"{rows:,}" for rows in SHARD_ROWS)]
    head[1] += " (default)"
    return table([head, *rows])


def work_table(
    size: DatasetSize,
    catalog: Catalog,
    *,
    speeds: Mapping[str, Any],
    growth: Mapping[str, Any],
    decode: Mapping[str, Mapping[str, float]],
    manifests: Sequence[ManifestSize],
) -> list[str]:
    """What there is to do, whatever the shards.

    Args:
        size: of the dataset.
        catalog: with the recipes.
        speeds: ``results.json``.
        growth: ``growth.json``.
        decode: core-seconds of a second of video, by kind of video, for ``probe``, ``original``, ``copy`` and
            ``transcode``.
        manifests: see ``extrapolate``.
    """
    clips = plans(size)[0].clips
    half = speeds["extraction"]
    core_hours = clips * (half["student"] + half["teacher"]) / half["clips"] * speeds["machine"]["cores"] / 3600
    point = growth["points"][-1]
    times = size.videos / point["videos"]
    seconds = 3600 * size.hours
    manifest = partial(extrapolate, manifests, videos=size.videos, clips=clips / size.videos)

    def hours(step: str) -> list[str]:
        return [f"{seconds * decode[kind][step] / 3600:,.0f}" for kind in decode]

    rows = [
        ["videos; hours of video", f"{size.videos:,}; {size.hours:,.0f}"],
        [f"clips at the catalog's defaults, {clips / size.videos:.0f} a video", f"{clips:,}"],
        ["the same frames as pixels, 112² and 224², three bytes each", _tera(clips * 3 * (112**2 + 224**2) / 1e9)],
        *(
            [f"decoding {kind}, core-hours: originals; copies; making the copies, once", "; ".join(three)]
            for kind, three in zip(
                decode, zip(hours("original"), hours("copy"), hours("transcode"), strict=True), strict=True
            )
        ),
        [f"decodings after which copies pay: {'; '.join(decode)}", "; ".join(_pay(each) for each in decode.values())],
        ["probing, core-hours: " + "; ".join(decode), "; ".join(hours("probe"))],
        ["backbones of `lite` on CPUs as here, core-hours", f"{core_hours:,.0f}"],
        [
            "multiply-adds, 10^15: " + ", ".join(f"`{name}`" for name in RECIPES),
            "; ".join(f"{clips * value / 1e6:,.0f}" for value in gmacs(catalog).values()),
        ],
        [f"backbones at {RATE:,} clips/s a GPU, GPU-hours", f"{clips / RATE / 3600:,.0f}"],
        [
            "planning without the probes: time, memory",
            f"{_clock(manifest('plan'))}, {manifest('plan_mib') / 1024:.1f} GiB",
        ],
        ["resuming where all is done", _clock(times * point["resume"] + manifest("load"))],
    ]
    return table([[size.name, ""], *rows])


def _pay(costs: Mapping[str, float]) -> str:
    spared = costs["original"] - costs["copy"]
    return f"{costs['transcode'] / spared:.0f}" if spared > 0 else "never"


def table(rows: list[list[str]]) -> list[str]:
    """Lines of a table in Markdown; the first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "| --- |" + " ---: |" * (len(rows[0]) - 1), *lines[1:]]


def _tera(gigabytes: float) -> str:
    return f"{gigabytes / 1e3:,.2f} TB" if gigabytes >= 1e3 else f"{gigabytes:,.0f} GB"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
