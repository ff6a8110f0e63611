"""What orchestration costs: the same extraction as plain functions and as a flow, and a command with nothing to do."""

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

from bench.machine import PeakMemory, median_seconds, run_module, seconds_of
from dynaprop.flows.extract_features import extract_features
from dynaprop.flows.server.own_server import prefect_server
from dynaprop.pipeline.extract.of_workspace import open_extraction
from dynaprop.pipeline.workspace import open_workspace


@dataclass(frozen=True)
class FlowSpeed:
    """Seconds of one extraction with tiny networks, medians; the start of Prefect's server is not counted."""

    shards: int
    clips: int
    functions: float
    """Called as plain functions."""
    flow: float
    """As flow `extract-features`, a task a shard."""

    @property
    def overhead(self) -> float:
        """Seconds of the flow that plain functions do not need, whatever the networks."""
        return self.flow - self.functions


@dataclass(frozen=True)
class RepeatSpeed:
    """Seconds of a whole process, medians."""

    command: float
    """`dynaprop extract` where everything is done already."""
    prefect: float
    """The interpreter, Prefect, its server and an empty flow."""


def measure_flow(
    catalog: Path, dataset: str, recipe: str, *, scratch: Path, repetitions: int, device: str
) -> FlowSpeed:
    """Extract a dataset of the catalog into new stores, as functions and as a flow in turns."""
    names = dataset, recipe, str(catalog)
    functions, flow = [], []
    with prefect_server():
        for repetition in range(-1, repetitions):  # the first time, networks are counted and the server starts
            os.environ["DYNAPROP_HOME"] = str(scratch / f"functions{repetition}")
            plainly = seconds_of(lambda: _extract(*names, device))
            os.environ["DYNAPROP_HOME"] = str(scratch / f"flow{repetition}")
            as_flow = seconds_of(lambda: extract_features(dataset, recipe, device=device, catalog=str(catalog)))
            if repetition >= 0:
                functions.append(plainly)
                flow.append(as_flow)
        with open_extraction(open_workspace(*names), dry_run=True) as extraction:
            manifest = extraction.store.manifest()
    clips = int(manifest.current()["n_clips"].sum())
    return FlowSpeed(
        len(manifest.shards()), clips, functions=statistics.median(functions), flow=statistics.median(flow)
    )


def measure_repeat(catalog: Path, dataset: str, *, home: Path, repetitions: int, device: str) -> RepeatSpeed:
    """Extract a dataset that is extracted, and run an empty flow, in turns."""
    arguments = ("extract", dataset, "--device", device, "--catalog", str(catalog))
    seconds = median_seconds(
        {
            "command": lambda: run_module("dynaprop.flows.cli", *arguments, DYNAPROP_HOME=str(home)),
            "prefect": lambda: run_module("bench.empty_flow"),
        },
        repetitions,
    )
    return RepeatSpeed(**seconds)


def measure_peak(catalog: Path, dataset: str, *, home: Path, device: str) -> float:
    """Peak memory of `dynaprop extract`, all its processes together, in MiB."""
    arguments = ("extract", dataset, "--device", device, "--catalog", str(catalog))
    with PeakMemory() as peak:
        run_module("dynaprop.flows.cli", *arguments, DYNAPROP_HOME=str(home))
    return peak.mebibytes


def _extract(dataset: str, recipe: str, catalog: str, device: str) -> None:
    """What the flow does, without it."""
    with open_extraction(open_workspace(dataset, recipe, catalog), device=device) as extraction:
        plan = extraction.plan(extraction.changes())
        extraction.extract_shards(plan.shards)
        extraction.summary()
