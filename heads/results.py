"""Results on disk: a run folder with parquet files, written unit by unit, so that an interrupted run goes on.

runs/<run>/results.parquet       a row a model and setting: key columns, metrics, costs
runs/<run>/predictions.parquet   a row a video under the same key: labels, predicted class, scores
runs/<run>/per_class.parquet     a row a class under the same key: average precision, recall
runs/<run>/units/                one finished training unit each; the files above are made of them
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from pipeline.errors import DynapropError
from pipeline.files import publish_json, publish_parquet

SCHEMA_VERSION = 1

KEY = [
    "dataset",
    "split",
    "fold",
    "experiment",
    "recipe",
    "model",
    "fusion_s",
    "fusion_t",
    "losses",
    "options_digest",
    "feature_key",
    "n_s",
    "n_t",
    "seed",
]
"""The columns that name a row; the same ones key the predictions."""

METRICS = [
    "top1",
    "top1_first_label",
    "map",
    "gflops_paper",
    "gmacs_measured",
    "n_s_used",
    "n_t_used",
    "n_videos",
    "n_missing",
    "seconds",
]

_TYPES = {"fold": "Int64", "fusion_s": "boolean", "fusion_t": "boolean", "gflops_paper": "float64"}
"""Columns that may lack a value: without a type of their own they would differ from run to run."""

TABLES = ("results", "predictions", "per_class")


@dataclass(frozen=True)
class UnitTables:
    """What one training unit adds to the run's files."""

    results: pd.DataFrame
    predictions: pd.DataFrame
    per_class: pd.DataFrame


class RunFolder:
    """The folder of one run.

    Args:
        path: ``runs/<run>``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._units = path / "units"

    def describe(self, settings: dict[str, object]) -> None:
        """Write what the run was asked to do to ``run.json``."""
        publish_json(self.path / "run.json", settings)

    def has(self, unit: str) -> bool:
        """Whether a unit is finished; the marker is written last."""
        return (self._unit(unit) / "done.json").exists()

    def write(self, unit: str, tables: UnitTables) -> None:
        """Store a finished unit."""
        folder = self._unit(unit)
        for name in TABLES:
            frame = getattr(tables, name).assign(run_id=self.path.name, schema_version=SCHEMA_VERSION)
            frame = frame.astype({column: kind for column, kind in _TYPES.items() if column in frame})
            publish_parquet(folder / f"{name}.parquet", frame)
        publish_json(folder / "done.json", {"unit": unit})

    def collect(self) -> None:
        """Join all finished units into the run's files.

        Where two units measured the same, as two sweeps may, the row appears once.
        """
        done = sorted(marker.parent for marker in self._units.glob("*/done.json"))
        for name, extra in zip(TABLES, ([], ["video_id"], ["class_name"]), strict=True):
            frames = [_read(folder, name) for folder in done]
            if frames:
                table = pd.concat(frames, ignore_index=True).drop_duplicates([*KEY, *extra])
                publish_parquet(self.path / f"{name}.parquet", table)

    def results_of(self, units: Sequence[str]) -> pd.DataFrame:
        """The results of these units alone."""
        return pd.concat([_read(self._unit(unit), "results") for unit in units], ignore_index=True)

    def checkpoints(self, unit: str) -> Path:
        """Folder of a unit's checkpoints."""
        return self.path / "checkpoints" / _safe(unit)

    def _unit(self, unit: str) -> Path:
        return self._units / _safe(unit)


def _read(unit: Path, name: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(unit / f"{name}.parquet")
    except (pa.ArrowException, OSError, ValueError):
        (unit / "done.json").unlink(missing_ok=True)
        raise DynapropError(f"{unit}: results are damaged; the same command now trains this unit again") from None


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
