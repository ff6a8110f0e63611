"""`make bench`: how fast extraction, cache, training and orchestration are, as ratios taken in one run.

    python -m bench.speed            # under 20 minutes on 2 cores; writes results.json, speed.png, the README's section
    python -m bench.speed --quick    # under 3 minutes; prints the table only
    python -m bench.speed --device cuda

Needs UT-Interaction below $DYNAPROP_DATA.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from bench.cache_speed import StoreSpeed, TrainingSpeed, measure_store, measure_training
from bench.extraction_speed import ExtractionSpeed, copy_videos, measure_extraction
from bench.flow_speed import FlowSpeed, RepeatSpeed, measure_flow, measure_repeat
from bench.machine import describe_machine
from flows.environment import prepare_environment
from pipeline.catalog import find_catalog, load_catalog
from pipeline.extraction import resolve_device
from pipeline.specs import DatasetSpec

HERE = Path(__file__).resolve().parent
DATASET, RECIPE = "ut-interaction", "lite"


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    shards: int
    videos: int
    """Of a shard of the extraction."""
    plain_videos: int
    store_shards: int
    flow_videos: int
    repetitions: int


FULL = Form(shards=5, videos=24, plain_videos=4, store_shards=40, flow_videos=40, repetitions=5)
QUICK = Form(shards=5, videos=2, plain_videos=1, store_shards=10, flow_videos=5, repetitions=3)


def main(quick: bool = False, device: str = "auto") -> None:
    """Measure, print, and, unless quick, write the files that the README quotes."""
    prepare_environment(verbose=False)
    console = Console(stderr=True)
    speeds = measure(QUICK if quick else FULL, device=resolve_device(device), console=console)
    Console().print(_table(speeds))
    ...
