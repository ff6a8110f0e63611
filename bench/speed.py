"""`make bench`: how fast extraction, cache, training and orchestration are, as ratios taken in one run.

    python -m bench.speed            # under 20 minutes on 2 cores; writes results.json, speed.png, README
    python -m bench.speed --quick    # under 3 minutes; measures once, prints only
    python -m bench.speed --device cuda

Needs UT-Interaction below $DYNAPROP_DATA.
"""

import json
import re
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import typer
import yaml
from rich.console import Console
from rich.table import Table

from bench.cache_speed import StoreSpeed, TrainingSpeed, measure_store, measure_training
from bench.extraction_speed import ExtractionSpeed, copy_videos, measure_extraction
from bench.flow_speed import FlowSpeed, RepeatSpeed, measure_flow, measure_peak, measure_repeat
from bench.forward_speed import ForwardSpeed, measure_forward
from bench.machine import describe_machine
from dynaprop.flows.terminal.progress import say
from dynaprop.pipeline.catalog.parser import find_catalog, load_catalog
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.machine import resolve_device

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
DATASET, RECIPE, CLIPS = "ut-interaction", "lite", 80


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    shards: int
    videos: int
    """Of one of these shards."""
    plain_videos: int
    """Of each shard, by the plain loop."""
    store_shards: int
    flow_videos: int
    """Each a shard of its own."""
    flow_repetitions: int
    repetitions: int


FULL = Form(5, videos=12, plain_videos=4, store_shards=100, flow_videos=20, flow_repetitions=5, repetitions=5)
QUICK = Form(3, videos=1, plain_videos=1, store_shards=20, flow_videos=20, flow_repetitions=1, repetitions=1)


@dataclass(frozen=True)
class Speeds:
    """All that was measured."""

    machine: dict[str, Any]
    minutes: float
    extraction: ExtractionSpeed
    forward: ForwardSpeed
    store: StoreSpeed
    training: TrainingSpeed
    flow: FlowSpeed
    repeat: RepeatSpeed
    peak_mib: float
    """Of all processes of `dynaprop extract`."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    value: str
    wanted: str
    how: str


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(quick: bool = False, device: str = "auto") -> None:
    """Measure and print; unless quick, write results.json, speed.png and the README's section."""
    speeds = measure(QUICK if quick else FULL, device=resolve_device(device))
    lines = summarise(speeds)
    table = Table("", "measured", "wanted", "how", title=_title(speeds))
    for line in lines:
        table.add_row(line.what, line.value, line.wanted, line.how)
    Console().print(table)
    if quick:
        return
    name = "results.json" if speeds.extraction.device == "cpu" else "results-cuda.json"
    (HERE / name).write_text(json.dumps(asdict(speeds), indent=1, default=float) + "\n", encoding="utf-8")
    if speeds.extraction.device == "cpu":
        _plot(speeds)
        _write_readme(speeds, lines)


def measure(form: Form, *, device: str) -> Speeds:
    """Take all measurements in a scratch folder."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dynaprop-bench-") as name:
        scratch = Path(name)
        source = load_catalog().dataset(DATASET)
        copy_videos(source, scratch / "videos", form.shards * form.videos)
        copy_videos(source, scratch / "flow-videos", form.flow_videos)
        catalog_path = _write_catalog(scratch, form)
        catalog = load_catalog(catalog_path)
        dataset, recipe = catalog.dataset("bench"), catalog.recipe(RECIPE)
        backbones = [catalog.backbone(name) for name in (recipe.student, recipe.teacher)]
        home = scratch / "home"
        extraction = measure_extraction(
            dataset, backbones, home=home, plain_videos=form.plain_videos, device=device, on_step=say
        )
        say("forward")
        forward = measure_forward(dataset, backbones, home=home, repetitions=form.repetitions, device=device)
        say("training")
        training = measure_training(
            dataset,
            backbones,
            home=home,
            repetitions=form.repetitions,
            decoded_videos=min(form.shards * form.videos, 8),
            device=device,
        )
        say("store")
        store = measure_store(backbones, shards=form.store_shards, repetitions=form.repetitions)
        say("repeat")
        repeat = measure_repeat(catalog_path, "bench", home=home, repetitions=form.repetitions, device=device)
        say("flow")
        flow = measure_flow(
            catalog_path, "bench-flow", "tiny", scratch=scratch, repetitions=form.flow_repetitions, device=device
        )
        say("memory")
        peak = measure_peak(catalog_path, "bench", home=scratch / "peak", device=device)
    minutes = (time.monotonic() - began) / 60
    return Speeds(describe_machine(), minutes, extraction, forward, store, training, flow, repeat, peak)


def summarise(speeds: Speeds) -> list[Line]:
    """The ratios, beside what they should be."""
    extraction, forward, store = speeds.extraction, speeds.forward, speeds.store
    training, flow, repeat = speeds.training, speeds.flow, speeds.repeat
    gigabytes = store.mebibytes * 2**20 / 1e9
    parts = "1 / (1/decode + 1/forward)" if extraction.device == "cpu" else "min(decode, forward)"
    rates = {name: extraction.clips / getattr(extraction, name) for name in ("decode", "student", "teacher", "plain")}
    return [
        Line(
            "extraction",
            f"{extraction.clips / extraction.extraction:.0f} clips/s",
            "",
            f"{extraction.extraction_total:.0f} s in {extraction.shards} shards, {extraction.start:.1f} s of start; "
            + ", ".join(f"{name} alone {rate:.0f}" for name, rate in rates.items() if name != "plain"),
        ),
        Line("efficiency", f"{extraction.efficiency:.2f}", "≥ 0.90", f"extraction / ({parts})"),
        Line(
            "against a plain loop",
            f"{extraction.speed_up:.1f} x",
            "≥ 2",
            f"PyAV, torch's resize, both networks, video by video in one process: {rates['plain']:.0f} clips/s",
        ),
        Line(
            "torch's own forward",
            f"{forward.torch:.2f} of ours",
            "",
            "both networks, uncompiled, in fp32"
            + ("" if extraction.device == "cpu" else ", which is what runs on GPUs"),
        ),
        Line(
            f"{forward.precision} instead",
            f"{forward.half:.1f} x",
            "cosine ≥ 0.999",
            f"both networks' forward; smallest cosine of a frame's features with those of fp32: {forward.cosine:.4f}",
        ),
        Line(
            "peak memory",
            f"{speeds.peak_mib:.0f} MiB",
            "",
            "all processes of `dynaprop extract` together, Prefect's server among them",
        ),
        Line(
            "reading a split",
            f"{store.read_memmap / store.read:.2f} of memmap",
            "≥ 0.70",
            f"{gigabytes:.1f} GB with manifest, ledgers and checksums: {gigabytes / store.read:.1f} GB/s; "
            f"numpy.memmap: {gigabytes / store.read_memmap:.1f} GB/s",
        ),
        Line(
            "writing",
            f"{store.write_memmap / store.write:.2f} of memmap",
            "",
            f"synced, read back and compared: {gigabytes / store.write:.2f} GB/s; "
            f"numpy.memmap: {gigabytes / store.write_memmap:.2f} GB/s",
        ),
        Line(
            "an epoch from the store",
            f"{training.in_memory / training.from_store:.2f} of in-memory",
            "≥ 0.90",
            f"{training.videos} videos, both stages: {1e3 * training.from_store:.0f} ms with reading, over 40 epochs",
        ),
        Line(
            "an epoch from video files",
            f"{training.from_videos / training.from_store:.0f} x slower",
            "≥ 50",
            f"{training.from_videos:.1f} s: 16 frames a video decoded and through both networks",
        ),
        Line(
            "nothing to do",
            f"{repeat.command - repeat.prefect:+.1f} s",
            "≤ 1 s",
            f"`dynaprop extract` once more: {repeat.command:.1f} s; Prefect with an empty flow: {repeat.prefect:.1f} s",
        ),
        Line(
            "orchestration",
            f"{100 * flow.overhead / (flow.clips * extraction.extraction / extraction.clips):+.1f} %",
            "≤ 5 %",
            f"of these clips' time: {flow.shards} shards of {flow.clips // flow.shards} clips with tiny networks "
            f"take {flow.flow:.1f} s as a flow, {flow.functions:.1f} s as functions",
        ),
    ]


def _write_catalog(scratch: Path, form: Form) -> Path:
    """The catalog with the benchmark's datasets."""
    document = yaml.safe_load(find_catalog().read_text(encoding="utf-8-sig"))
    clips = {"min_clips": CLIPS, "max_clips": CLIPS}
    document["datasets"] = {
        "bench": {"root": str(scratch / "videos"), "shard_rows": form.videos * CLIPS, **clips},
        "bench-flow": {"root": str(scratch / "flow-videos"), "shard_rows": CLIPS, **clips},
    }
    weights = {"weights": "random"}
    document["backbones"] |= {
        "tiny-112": {"model": "test_efficientnet", "size": 112, **weights},
        "tiny-224": {"model": "test_resnet", "size": 224, **weights},
    }
    document["recipes"]["tiny"] = {"student": "tiny-112", "teacher": "tiny-224"}
    path = scratch / "catalog.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _title(speeds: Speeds) -> str:
    machine = speeds.machine
    device = machine["gpu"] if speeds.extraction.device != "cpu" else machine["processor"]
    return (
        f"{DATASET}, {RECIPE}; {device}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"torch {machine['torch']}, {machine['date']}, {speeds.minutes:.0f} minutes"
    )


def _plot(speeds: Speeds) -> None:
    """Each stage's share of the extraction's time, as one bar."""
    extraction = speeds.extraction
    shares = {
        name: getattr(extraction, name) / extraction.extraction for name in ("decode", "student", "teacher", "write")
    }
    shares["the rest"] = max(0.0, 1 - sum(shares.values()))
    figure, axes = plt.subplots(figsize=(8, 1.6), layout="constrained")
    left = 0.0
    for name, share in shares.items():
        axes.barh(0, share, left=left, label=f"{name} {100 * share:.1f} %")
        left += share
    axes.axvline(1, color="black", linewidth=1)
    axes.set(yticks=[], xlabel="alone, as a part of the whole extraction's time", xlim=(0, max(1.0, left)))
    axes.legend(ncols=len(shares), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize="small")
    figure.savefig(HERE / "speed.png", dpi=150)


def _write_readme(speeds: Speeds, lines: list[Line]) -> None:
    rows = [f"| {line.what} | {line.value} | {line.wanted} | {line.how} |" for line in lines]
    head = ["<!-- speed -->", _title(speeds) + ".", "", "| | measured | wanted | how |", "| --- | ---: | ---: | --- |"]
    section = "\n".join([*head, *rows, "<!-- /speed -->"])
    readme = HERE.parent / "README.md"
    text = re.sub("<!-- speed -->.*<!-- /speed -->", lambda _: section, readme.read_text(encoding="utf-8"), flags=re.S)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        app()
    except DynapropError as error:
        sys.exit(f"error: {error}")
