"""The rows of a run: what names one, what is measured for it, and who asked for it."""

from dataclasses import dataclass

import pandas as pd

from dynaprop.heads.evaluation.chance import LEVELS
from dynaprop.heads.model.setting import Setting
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.sealed import read_record

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
    *LEVELS,
    "gflops_paper",
    "gmacs_measured",
    "n_s_used",
    "n_t_used",
    "n_videos",
    "n_missing",
    "seconds",
]

TYPES = {
    **{"fold": "Int64", "fusion_s": "boolean", "fusion_t": "boolean", "experiment": "object"},
    **{"gflops_paper": "float64", "weight_s": "float64", "weight_t": "float64"},
}
"""Columns that may lack a value: without a type of their own they would differ from run to run."""

TABLES = ("results", "predictions", "per_class", "frame_scores")

SETTING = list(Setting.__dataclass_fields__)
"""The columns that are a row's setting."""

ASPECTS = ["split", "fold", "seed", *SETTING]
"""The columns that tell the rows of one run folder apart, but for the experiment."""


@dataclass(frozen=True)
class UnitTables:
    """What one training unit adds to the run's files."""

    results: pd.DataFrame
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    frame_scores: pd.DataFrame | None = None


@dataclass(frozen=True)
class Measured:
    """One row that is there: a setting on one split at one seed."""

    split: str
    fold: int | None
    seed: int
    setting: Setting


@dataclass(frozen=True)
class Asked:
    """What an experiment consists of."""

    experiment: str
    split: str
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]


def rows_in(frame: pd.DataFrame) -> set[Measured]:
    """The rows that a table speaks of, whatever else it says of them."""
    keys = frame[ASPECTS].drop_duplicates()
    return {
        Measured(row.split, None if pd.isna(row.fold) else int(row.fold), int(row.seed), setting)
        for row, setting in zip(keys.itertuples(), settings_in(keys), strict=True)
    }


def settings_in(frame: pd.DataFrame) -> list[Setting]:
    """The setting of each line of a table."""
    return [
        Setting(
            model=row.model,
            n_s=int(row.n_s),
            n_t=int(row.n_t),
            fusion_s=None if pd.isna(row.fusion_s) else bool(row.fusion_s),
            fusion_t=None if pd.isna(row.fusion_t) else bool(row.fusion_t),
            losses=row.losses,
        )
        for row in frame[SETTING].itertuples()
    ]


def read_asked(file: StoragePath) -> Asked:
    """What an experiment consists of, from its file.

    Raises:
        FileNotFoundError: there is none.
        DynapropError: it is damaged.
    """
    try:
        entry = read_record(file)
        if unknown := entry.keys() - Asked.__dataclass_fields__.keys():
            raise ValueError(f"unknown {unknown}")
        settings = tuple(Setting(**setting) for setting in entry["settings"])
        return Asked(entry["experiment"], entry["split"], tuple(entry["seeds"]), settings)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DynapropError(f"{file} is damaged; delete it and run the sweep again that it is named after") from None
