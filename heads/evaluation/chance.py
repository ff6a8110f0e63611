"""What a score has to be compared with before it means anything: guessing, and always answering the largest class.

`chance` is 1 / number of classes, `chance_map` the mAP that random scores have on average, and `largest_class` the
share of the test videos that show the most frequent class, which is the top-1 of a constant answer (right, as any,
where the class is among a video's labels). The last one is never below the first.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

LEVELS = ("chance", "chance_map", "largest_class")
"""Columns of the results."""


def levels(positives: np.ndarray, n_videos: int) -> dict[str, float]:
    """The levels of some test videos.

    Args:
        positives: how many of them show each class, ``[c]``.
        n_videos: how many there are.
    """
    # A positive at rank i has precision (1 + others before it) / i; on average (i - 1)(p - 1)/(n - 1) others are there.
    counts = np.asarray(positives, dtype=np.float64)
    harmonic = (1 / np.arange(1, n_videos + 1)).sum()
    expected = (harmonic + (counts - 1) / max(n_videos - 1, 1) * (n_videos - harmonic)) / n_videos
    return {
        "chance": 1 / len(counts),
        "chance_map": float(np.where(counts > 0, expected, 0.0).mean()),
        "largest_class": float(counts.max() / n_videos),
    }


def with_levels(results: pd.DataFrame, per_class: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Results with the columns `LEVELS`, which runs of earlier versions lack.

    Args:
        results: rows of ``results.parquet``.
        per_class: rows of ``per_class.parquet`` under the same keys.
        key: the columns that name a row.
    """
    positives = per_class["n_videos"].groupby(_names(per_class, key)).agg(list)
    unknown = dict.fromkeys(LEVELS, float("nan"))
    found = [
        levels(np.array(positives[name]), int(n_videos)) if name in positives.index else unknown
        for name, n_videos in zip(_names(results, key), results["n_videos"], strict=True)
    ]
    return results.assign(**{name: [row[name] for row in found] for name in LEVELS})


def _names(table: pd.DataFrame, key: list[str]) -> pd.Series:
    """A text a row: columns that lack values are not of one type in two tables, which a merge refuses."""
    first, *others = (table[column].astype("string").fillna("") for column in key)
    return first.str.cat(others, sep="\x1f")


def level_lines(line: Mapping[Any, Any]) -> dict[str, dict[str, float]]:
    """The levels of a line of ``summarise`` as lines of a table: name, and value by metric; none where unknown."""
    if pd.isna(line["largest_class"]):
        return {}
    return {
        "always the largest class": {"top1": line["largest_class"]},
        "chance": {"top1": line["chance"], "map": line["chance_map"]},
    }


def levels_in_words(line: Mapping[Any, Any]) -> str:
    """The levels of a line of ``summarise`` in a sentence, without its full stop; empty where they are unknown."""
    if pd.isna(line["largest_class"]):
        return ""
    chance, chance_map, largest = (f"{100 * line[name]:.1f}" for name in LEVELS)
    return (
        f"chance is {chance} % of top-1 and {chance_map} % of mAP; always answering the largest class has {largest} % "
        "of top-1"
    )
