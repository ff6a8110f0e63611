"""The tables: a line a model and setting, ours beside the paper's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynaprop.heads.evaluation.chance import level_lines
from dynaprop.heads.evaluation.constant_answer import against_largest, not_above_in_words
from dynaprop.heads.evaluation.published import DATASET_NAMES, family_of, published_rows, published_table
from dynaprop.heads.evaluation.summary import PAPER_NAMES, dynamic_minus, summarise
from dynaprop.heads.model.setting import MODELS
from dynaprop.heads.report.compare import Metric
from dynaprop.heads.report.rows import VARIANT, is_full

METRIC_NAMES = {"top1": "top-1", "map": "mAP"}
LOSS_NAMES = {"vid": "vid", "vid+frm": "vid + frm", "vid+cos": "vid + cos", "vid+frm+cos": "vid + frm + cos"}

_TITLES = {
    "table1": "Table 1: comparison with other methods",
    "table2": "Table 2: comparison with other methods",
    "table3": "Table 3: impact of dynamic knowledge propagation",
    "table4": "Table 4: impact of temporal feature fusion",
    "table5": "Table 5: impact of loss functions",
    "figure4": "Figure 4: every point of the curves",
    "sweep": "All measured settings",
    "default": "Default sweep",
    "baselines": "Baselines",
    "train": "Trained for checkpoints",
}

_COUNTS = {"seeds": "seeds", "n_videos": "videos", "n_missing": "missing"}

Line = dict[str, Any]


@dataclass(frozen=True)
class ReportTable:
    """One experiment as a table of text."""

    name: str
    """Stem of its parquet file."""
    title: str
    columns: list[str]
    lines: list[Line]
    """``model`` (null for other people's), ``kind`` (``main`` for the whole Dynamic-STE, ``published`` for a row of the
    paper, else empty) and ``cells``, one a column."""
    levels: list[tuple[str, list[str]]]
    """What guessing and a constant answer get: name, and a cell for each further column."""
    caption: str
    """Ends with the models that are not shown to be above a constant answer."""
    notes: list[str]
    """Where the paper contradicts itself about the rows shown."""
    data: pd.DataFrame


def report_table(
    results: pd.DataFrame, predictions: pd.DataFrame, *, experiment: str, metric: Metric, name: str
) -> ReportTable:
    """Means with intervals over seeds, costs, Dynamic-STE minus each line with an interval over videos, and the paper.

    A published row stands in the line of ours that has the same model, frames, fusion, losses and family of backbones;
    the other rows of its table follow below.

    Args:
        results: rows of one part and experiment.
        predictions: its predictions, with scores where the metric is ``map``.
        experiment: what the rows belong to.
        metric: the headline, ``top1`` or ``map``.
        name: stem of its parquet file.
    """
    data = summarise(results).reset_index(drop=True)
    gaps = dynamic_minus(data, predictions, metric=metric)
    for column, bound in (("dynamic_minus", "estimate"), ("dynamic_minus_low", "low"), ("dynamic_minus_high", "high")):
        data[column] = [float("nan") if gap is None else getattr(gap, bound) for gap in gaps]
    not_above = not_above_in_words(against_largest(data, predictions))
    families = {recipe: family_of(rows["feature_key"].iloc[0]) for recipe, rows in results.groupby("recipe")}
    paper = published_rows(published_table(experiment))
    if experiment not in ("table1", "table2"):  # elsewhere a recipe is compared with its own family
        paper = paper[paper["backbone"].isin(set(families.values()))]
    beside = [_published(line, paper, families[line["recipe"]]) for line in data.to_dict("records")]
    data["published"] = [float("nan") if row is None else row["value"] / 100 for row in beside]
    used = {row["index"] for row in beside if row is not None}
    rest = [row for row in paper.reset_index().to_dict("records") if row["index"] not in used]
    columns = _columns(data, paper, metric)
    lines = [
        {"model": line["model"], "kind": "main" if main else "", "cells": [cell(line) for cell, _ in columns.values()]}
        for line, main in zip(data.to_dict("records"), is_full(data), strict=True)
    ]
    lines += [
        {"model": _known(row["model"]), "kind": "published", "cells": [cell(row) for _, cell in columns.values()]}
        for row in rest
    ]
    notes = [f"{row.source}, {row.method}: {row.note}" for row in paper.dropna(subset=["note"]).itertuples()]
    return ReportTable(
        name=name,
        title=_TITLES.get(experiment, experiment),
        columns=list(columns),
        lines=lines,
        levels=_levels(data, list(columns)),
        caption=" ".join(filter(None, [_caption(data, rest, paper), not_above and f"{not_above}."])),
        notes=notes,
        data=data,
    )


def _published(line: Line, paper: pd.DataFrame, family: str | None) -> Line | None:
    """The paper's row about the very same setting."""
    for row in paper.reset_index().to_dict("records"):
        alike = all(_same(row[name], line[name]) for name in ("model", "n_s", "n_t", *VARIANT))
        if alike and row["backbone"] == family:
            return row
    return None


def _columns(
    data: pd.DataFrame, paper: pd.DataFrame, metric: Metric
) -> dict[str, tuple[Callable[[Line], str], Callable[[Line], str]]]:
    """Columns by heading: how to write a line of ours, and a row of the paper."""
    other = "map" if metric == "top1" else "top1"
    published = paper["metric"].iloc[0] if len(paper) else metric
    on = DATASET_NAMES[paper["dataset"].iloc[0]] if len(paper) else ""

    def nothing(_row: Line) -> str:
        return ""

    columns: dict[str, tuple[Callable[[Line], str], Callable[[Line], str]]] = {
        "model": (lambda line: PAPER_NAMES[line["model"]], lambda row: row["method"])
    }
    if data["recipe"].nunique() > 1 or paper["backbone"].nunique() > 1:
        columns["recipe"] = (lambda line: line["recipe"], lambda row: row["backbone"])
    varied = data[data["model"] == "dynamic"]
    if varied[["fusion_s", "fusion_t"]].drop_duplicates().shape[0] > 1:
        columns["fusion in student"] = (lambda line: _yes(line["fusion_s"]), lambda row: _yes(row["fusion_s"]))
        columns["in teacher"] = (lambda line: _yes(line["fusion_t"]), lambda row: _yes(row["fusion_t"]))
    if varied["losses"].nunique() > 1:
        columns["losses"] = (lambda line: _losses(line["losses"]), lambda row: _losses(row["losses"]))
    columns |= {
        "n_s": (lambda line: _frames(line["n_s"], line["n_s_used"]), lambda row: _asked(row["n_s"])),
        "n_t": (lambda line: _frames(line["n_t"], line["n_t_used"]), lambda row: _asked(row["n_t"])),
        f"{METRIC_NAMES[metric]} %": (lambda line: _percent(line, metric), nothing),
        f"{METRIC_NAMES[other]} %": (lambda line: _percent(line, other), nothing),
    }
    if len(paper):
        heading = f"published, not measured: {METRIC_NAMES[published]} % on {on}"
        columns[heading] = (lambda line: _number(100 * line["published"], 1), lambda row: _number(row["value"], 1))
    columns |= {
        "GFLOPs (paper)": (lambda line: _number(line["gflops_paper"], 1), lambda row: _number(row["gflops"], 1)),
        "GMACs (measured)": (lambda line: _number(line["gmacs_measured"], 2), nothing),
        "Dynamic-STE minus it, points": (_difference, nothing),
    }
    for column in _COUNTS:
        if data[column].nunique() > 1:  # else the caption says it once
            columns[_COUNTS[column]] = (_count(column), nothing)
    return columns


def _levels(data: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
    names = {f"{name} %": metric for metric, name in METRIC_NAMES.items()}
    return [
        (name, [_number(100 * values.get(names.get(column, ""), float("nan")), 1) for column in columns[1:]])
        for name, values in level_lines(data.iloc[0]).items()
    ]


def _caption(data: pd.DataFrame, rest: list[Line], paper: pd.DataFrame) -> str:
    same = {column: int(data[column].iloc[0]) for column in _COUNTS if data[column].nunique() == 1}
    text = f"Every line: {', '.join(_counted(column, count) for column, count in same.items())}. " if same else ""
    text += "± is half a 95 % interval over seeds. " if data["seeds"].max() > 1 else "One seed: no intervals. "
    if data["dynamic_minus"].notna().any():
        text += (
            "“Dynamic-STE minus it” compares on the same videos and at the line's own frames, with a 95 % bootstrap "
            "interval over videos. "
        )
    if rest:
        text += f"Lines in italics are published ({paper['source'].iloc[0].split(',')[0]} of the paper), not measured."
    return text.strip()


def _counted(column: str, count: int) -> str:
    return f"{count:,} {_COUNTS[column].removesuffix('s') if count == 1 else _COUNTS[column]}"


def _count(column: str) -> Callable[[Line], str]:
    return lambda line: str(line[column])


def _same(a: object, b: object) -> bool:
    if pd.isna(a) or pd.isna(b):
        return bool(pd.isna(a) and pd.isna(b))
    return bool(a == b)


def _known(model: object) -> str | None:
    return str(model) if model in MODELS else None


def _yes(fused: object) -> str:
    return "-" if pd.isna(fused) else "yes" if fused else "no"


def _losses(losses: object) -> str:
    return LOSS_NAMES.get(str(losses), "-")


def _asked(frames: object) -> str:
    return "-" if pd.isna(frames) or not frames else str(frames)


def _frames(asked: int, used: float) -> str:
    """Frames asked for, and the mean really used where short videos had fewer."""
    if not asked:
        return "-"
    return str(asked) if math.isclose(asked, used) else f"{asked} ({used:.1f} used)"


def _percent(line: Line, metric: str) -> str:
    half = line[f"{metric}_high"] - line[metric]
    return f"{100 * line[metric]:.1f}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _difference(line: Line) -> str:
    if math.isnan(line["dynamic_minus"]):
        return ""
    if math.isnan(line["dynamic_minus_low"]):
        return f"{round(100 * line['dynamic_minus'], 1) + 0.0:+.1f}"
    names = ("dynamic_minus", "dynamic_minus_low", "dynamic_minus_high")
    middle, low, high = (round(100 * line[name], 1) + 0.0 for name in names)  # + 0.0: no minus before zero
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"
