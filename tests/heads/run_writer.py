"""A command that adds a seed's results to a run, in a process of its own that stands still or dies at a chosen step."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dynaprop.heads.evaluation.chance import LEVELS
from dynaprop.heads.model.setting import Setting, expand
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.rows import Asked, Measured, UnitTables
from dynaprop.pipeline.io.paths import storage_path

SETTINGS: tuple[Setting, ...] = tuple(expand(["student", "dynamic"], [(4, 2)]))
VIDEOS = ("a", "b", "c")
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.listdir", "os.scandir", "fcntl.flock")


def add_results(
    place: str,
    seed: int,
    log: str,
    environment: Mapping[str, str],
    stop_at: int | None = None,
    die_at: int | None = None,
) -> None:
    """Ask for a seed, measure it, and join the tables.

    Args:
        place: the run's folder.
        seed: which one.
        log: file that gets the number of steps, and the notes; it is there when all is done.
        environment: what has to be known of an object store.
        stop_at: the step on a disk before which the process stops itself.
        die_at: the one before which it kills itself.
    """
    steps, notes = 0, []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if event not in EVENTS or not (event == "fcntl.flock" or str(arguments[0]).startswith(place)):
            return
        steps += 1
        if steps == stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.environ.update(environment)
    sys.addaudithook(hook)
    run = RunFolder(storage_path(place), on_note=notes.append)
    run.describe({"dataset": "d", "classes": ["x", "y"]})
    run.ask(Asked("sweep", "test", (seed,), SETTINGS))
    run.measured()
    run.write(f"test-seed{seed}", tables_of(seed))
    run.collect()
    Path(log).write_text("\n".join([str(steps), *notes]), encoding="utf-8")


def tables_of(seed: int) -> UnitTables:
    """What a training of a seed measured; the figures are the seed's own."""
    rows = [
        {
            **{"dataset": "d", "split": "test", "fold": None, "experiment": None, "recipe": "lite"},
            **vars(setting),
            **{"options_digest": "0", "feature_key": "f", "seed": seed, "top1": seed + number / 8, "map": 0.5},
            **dict.fromkeys(LEVELS, 0.5),
        }
        for number, setting in enumerate(SETTINGS)
    ]
    results = pd.DataFrame(rows)
    keys = results.drop(columns=["top1", "map", *LEVELS])
    predictions = keys.merge(pd.DataFrame({"video_id": VIDEOS, "predicted": seed}), how="cross")
    per_class = keys.merge(pd.DataFrame({"class_name": ["x", "y"], "average_precision": float(seed)}), how="cross")
    return UnitTables(results, predictions, per_class, frame_scores=predictions if seed == 0 else None)


def measured(seed: int) -> set[Measured]:
    """The rows of a seed."""
    return {Measured("test", None, seed, setting) for setting in SETTINGS}
