"""`make bench-scale`: ten thousand shard tasks through Prefect and Dask, and what large datasets take.

    python -m bench.scale                  # a quarter of an hour; writes scale.json and the numbers of docs/scale.md
    python -m bench.scale --quick          # 200 tasks, prints only
    python -m bench.scale --only decode    # one of its measurements anew
    python -m bench.scale --write          # measures nothing, writes the numbers of docs/scale.md anew

Everything is made up: fake work, drawn videos, manifests of videos that do not exist. No dataset is needed.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from bench.machine import describe_machine
from bench.manifest_size import ManifestSize, measure_manifest
from bench.plan import DATASETS, shard_table, table, work_table
from bench.server_health import Health, watched_server
from bench.shard_tasks import WARM_UP, TaskTimes
from bench.transcode_speed import TranscodeSpeed, measure_transcode
from dynaprop.flows.terminal.progress import say
from dynaprop.pipeline.catalog.parser import load_catalog

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "scale.md"
TASKS = ((1000, 0.05), (1000, 0.0), (10_000, 0.0))  # how many, and seconds of work each
PREFECTS_OWN = {"PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "1"}
MANIFESTS = ((1000, 25), (100_000, 25), (100_000, 367))  # videos, and clips of each
VIDEOS = {"1280 x 720": (1280, 720), "340 x 256": (340, 256)}
CLIP_SECONDS = {"Kinetics-700": 0.4, "HowTo100M": 1.0}  # the first has 25 clips in 10 s
SECONDS_OF_VIDEO = 30


@dataclass(frozen=True)
class Point:
    """So many tasks, and the server meanwhile."""

    times: TaskTimes
    server: Health


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(quick: bool = False, write: bool = False, only: str | None = None) -> None:
    """Measure and print; unless quick, write scale.json and the sections of docs/scale.md."""
    if quick:
        print("\n".join(_task_table([measure_tasks(200, 0.0)])))
        return
    path = HERE / "scale.json"
    if not write:
        document: dict[str, Any] = (
            json.loads(path.read_text(encoding="utf-8")) if only else {"machine": describe_machine()}
        )
        for name in [only] if only else MEASUREMENTS:
            document[name] = MEASUREMENTS[name]()
            path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    measured = json.loads(path.read_text(encoding="utf-8"))
    for name, lines in sections(measured).items():
        fill(DOCUMENT, name, lines)


def measure_tasks(tasks: int, work: float, settings: Mapping[str, str] | None = None) -> Point:
    """Run fake shard tasks by a new server, in a process of their own.

    Args:
        tasks: how many.
        work: seconds of each.
        settings: of the server, other than `dynaprop serve` has.
    """
    say(f"{tasks} tasks of {work:g} s")
    with tempfile.TemporaryDirectory(prefix="dynaprop-bench-") as name, watched_server(Path(name), settings) as server:
        command = [sys.executable, "-m", "bench.shard_tasks", str(tasks), str(work)]
        environment = {**os.environ, "PREFECT_API_URL": server.url, "PREFECT_HOME": name}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return Point(TaskTimes(**json.loads(done.stdout.splitlines()[-1])), server.settle(tasks + WARM_UP))


def measure_decoding(clip_seconds: float) -> dict[str, dict[str, float]]:
    """Core-seconds of a second of video: probing, decoding, decoding its copy, making the copy; by size."""
    costs = {}
    for name, size in VIDEOS.items():
        say(f"decoding {name}, a clip every {clip_seconds:g} s")
        with tempfile.TemporaryDirectory(prefix="dynaprop-bench-") as folder:
            speed: TranscodeSpeed = measure_transcode(
                Path(folder), seconds=SECONDS_OF_VIDEO, repetitions=3, size=size, clip_seconds=clip_seconds
            )
        steps = ("probe", "original", "copy", "transcode")
        costs[name] = {step: getattr(speed, step) / SECONDS_OF_VIDEO for step in steps}
    return costs


MEASUREMENTS: dict[str, Callable[[], Any]] = {
    "manifests": lambda: [asdict(measure_manifest(*size)) for size in MANIFESTS],
    "tasks": lambda: [asdict(measure_tasks(*tasks)) for tasks in TASKS],
    "prefects_own": lambda: asdict(measure_tasks(*TASKS[-1], PREFECTS_OWN)),
    "decode": lambda: {name: measure_decoding(seconds) for name, seconds in CLIP_SECONDS.items()},
}


def sections(measured: Mapping[str, Any]) -> dict[str, list[str]]:
    """Lines of each section of the document.

    Args:
        measured: ``scale.json``.
    """
    points = [Point(TaskTimes(**point["times"]), Health(**point["server"])) for point in measured["tasks"]]
    own = Point(TaskTimes(**measured["prefects_own"]["times"]), Health(**measured["prefects_own"]["server"]))
    speeds, growth = (json.loads((HERE / name).read_text(encoding="utf-8")) for name in ("results.json", "growth.json"))
    catalog = load_catalog(HERE.parent / "catalog.yaml")
    manifests = [ManifestSize(**size) for size in measured["manifests"]]
    machine, most = measured["machine"], points[-1].times
    task_ms = most.overhead(most.prefect)
    title = (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['date']}."
    )
    found = {"simulation": [title, "", *_task_table([*points, own])]}
    for size in DATASETS:
        decode = measured["decode"][size.name]
        name = size.name.lower()
        found[name] = [
            *work_table(size, catalog, speeds=speeds, growth=growth, decode=decode, manifests=manifests),
            "",
            *shard_table(size, catalog, speeds=speeds, task_ms=task_ms),
        ]
    return found


def fill(path: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what stands between the markers of a section."""
    section = "\n".join([f"<!-- {name} -->", *lines, f"<!-- /{name} -->"])
    text, count = re.subn(
        f"<!-- {name} -->.*<!-- /{name} -->", lambda _: section, path.read_text(encoding="utf-8"), flags=re.S
    )
    if count != 1:
        raise RuntimeError(f"{path}: {count} sections {name!r}")
    path.write_text(text, encoding="utf-8")


def _task_table(points: Sequence[Point]) -> list[str]:
    """A column a point."""
    times, servers = [point.times for point in points], [point.server for point in points]
    rows = [
        ["overhead a task, Dask alone", *(f"{each.overhead(each.dask):.1f} ms" for each in times)],
        ["overhead a task, Prefect and Dask", *(f"{each.overhead(each.prefect):.1f} ms" for each in times)],
        ["tasks a second, Dask alone", *(f"{each.tasks / each.dask:.0f}" for each in times)],
        ["tasks a second, Prefect and Dask", *(f"{each.tasks / each.prefect:.0f}" for each in times)],
        ["of it the slowest and fastest tenth", *(f"{min(each.tenths):.0f}, {max(each.tenths):.0f}" for each in times)],
        ["workers busy", *(f"{each.utilisation(each.prefect):.0%}" if each.work else "" for each in times)],
        ["the command's memory; grown by", *(f"{each.mib:.0f}; {each.mib_grown:.0f} MiB" for each in times)],
        ["the server's memory at the most", *(f"{each.mib:.0f} MiB" for each in servers)],
        ["its database grew by", *(f"{each.database_mib:.0f} MiB" for each in servers)],
        ["GET /api/health, median and longest", *(_pair(each.health_ms) for each in servers)],
        ["the newest ten flow runs, median and longest", *(_pair(each.query_ms) for each in servers)],
        ["requests refused, of", *(f"{each.refused} of {2 * each.looks}" for each in servers)],
        ["in its log: database is locked; errors in all", *(f"{each.locked}; {each.errors}" for each in servers)],
        ["and: a queue is full, an event dropped", *(f"{each.dropped:,}" for each in servers)],
        ["task runs it has as completed; missing", *(f"{each.completed:,}; {each.missing:,}" for each in servers)],
        ["the last came after the command's end by", *(f"{each.recorded_after:.0f} s" for each in servers)],
    ]
    return table([["tasks, seconds of work each", *(f"{each.tasks:,} of {each.work:g} s" for each in times)], *rows])


def _pair(milliseconds: Sequence[float]) -> str:
    median, longest = milliseconds
    return f"{median:.0f}, {longest:,.0f} ms"


if __name__ == "__main__":
    app()
