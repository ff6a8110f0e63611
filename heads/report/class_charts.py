"""Class by class: average precision of Student and Dynamic-STE, and what Dynamic-STE takes for what."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from dynaprop.heads.evaluation.summary import PAPER_NAMES
from dynaprop.heads.report.chart import Chart, Look, grid_of, plain

MANY = 30
"""More classes than this are not drawn one and all."""

_SHOWN = 12  # gains and losses each, where there are many classes
_PAIRS = 20


def class_gains(per_class: pd.DataFrame) -> pd.DataFrame:
    """Mean average precision of a class over seeds, folds weighted by the class's videos, of both models.

    Args:
        per_class: rows of one part, of the models ``student`` and ``dynamic`` at one setting each.

    Returns:
        ``class_name``, ``n_videos``, ``student``, ``dynamic`` and ``gain`` (their difference), by ``dynamic``.
    """
    rows = per_class[per_class["n_videos"] > 0]  # a fold without the class says nothing of it
    weighted = rows.assign(weighted=rows["average_precision"] * rows["n_videos"])
    by_seed = weighted.groupby(["class_name", "model", "seed"])[["weighted", "n_videos"]].sum()
    mean = (by_seed["weighted"] / by_seed["n_videos"]).groupby(["class_name", "model"]).mean().unstack("model")
    videos = by_seed["n_videos"].groupby("class_name").max().astype("int64")
    table = mean.reindex(columns=["student", "dynamic"]).assign(n_videos=videos)
    table = table.assign(gain=table["dynamic"] - table["student"]).reset_index()
    table = table.sort_values(["dynamic", "class_name"], ascending=[False, True], ignore_index=True)
    return table[["class_name", "n_videos", "student", "dynamic", "gain"]].rename_axis(columns=None)


def class_chart(gains: pd.DataFrame, *, name: str, title: str, about: str) -> Chart:
    """Bars of both models a class; of many classes those that gain and lose most.

    Args:
        gains: from ``class_gains``.
        name, title: of the chart.
        about: the two settings in words.
    """
    many = len(gains) > MANY
    shown = gains
    if many:
        order = gains.dropna(subset=["gain"]).sort_values("gain", ascending=False)
        shown = pd.concat([order.head(_SHOWN), order.tail(_SHOWN)])

    def draw(figure: Figure, look: Look, narrow: bool) -> None:
        axes = figure.subplots()
        y = np.arange(len(shown))
        for offset, model in ((-0.2, "dynamic"), (0.2, "student")):
            colour = look.models[model]
            axes.barh(y + offset, 100 * shown[model], 0.38, color=colour, label=PAPER_NAMES[model])
        labels = [plain(text, 16 if narrow else 34) for text in shown["class_name"]]
        axes.set_yticks(y, labels, color=look.ink, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("average precision, %")
        axes.tick_params(axis="y", length=0)
        if many:
            axes.axhline(_SHOWN - 0.5, color=look.muted, linewidth=0.8, linestyle=":")
        grid_of(axes, look, axis="x")
        figure.legend(loc="outside upper left", ncols=2, fontsize=9)

    height = 0.9 + 0.34 * len(shown)
    up, down = int((gains["gain"] > 0).sum()), int((gains["gain"] < 0).sum())
    best = gains.loc[gains["gain"].idxmax()] if gains["gain"].notna().any() else None
    alt = f"Bars of average precision by class. Dynamic-STE is above Student in {up} of {len(gains)} classes, below in "
    alt += f"{down}."
    if best is not None and best["gain"] > 0:
        alt += f" The largest gain is {100 * best['gain']:.1f} points, for {best['class_name']}."
    which = f"The {_SHOWN} classes that gain and the {_SHOWN} that lose most. " if many else ""
    caption = f"{which}{about} Above Student in {up} of {len(gains)} classes, below in {down}. Means over seeds."
    return Chart(draw, name=name, title=title, caption=caption, alt=alt, data=gains, height=height)


def confusion(predictions: pd.DataFrame, class_names: Sequence[str]) -> np.ndarray:
    """Counts ``[true, predicted]`` over videos, a mean over seeds.

    A video with several labels counts where it was right, else under its first label.
    """
    counts = np.zeros((len(class_names), len(class_names)))
    for labels, predicted in zip(predictions["labels"], predictions["predicted"], strict=True):
        counts[predicted if predicted in labels else labels[0], predicted] += 1
    return counts / max(1, predictions["seed"].nunique())


def confusion_table(counts: np.ndarray, class_names: Sequence[str]) -> pd.DataFrame:
    """The matrix in long form: ``true_class``, ``predicted_class``, ``videos``, ``share`` of the true class."""
    true, predicted = np.nonzero(counts)
    totals = counts.sum(axis=1)
    return pd.DataFrame(
        {
            "true_class": [class_names[int(i)] for i in true],
            "predicted_class": [class_names[int(i)] for i in predicted],
            "videos": counts[true, predicted],
            "share": counts[true, predicted] / totals[true],
        }
    )


def confused_pairs(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """The most frequent mistakes of a ``confusion_table``."""
    wrong = table[table["true_class"] != table["predicted_class"]]
    return wrong.sort_values(["videos", "share"], ascending=False).head(_PAIRS).to_dict("records")


def confusion_chart(counts: np.ndarray, class_names: Sequence[str], *, name: str, title: str, about: str) -> Chart:
    """The matrix, each row in percent of its true class."""
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    n = len(class_names)

    def draw(figure: Figure, look: Look, narrow: bool) -> None:
        axes = figure.subplots()
        shades = LinearSegmentedColormap.from_list("shades", look.shades)
        axes.pcolormesh(share, cmap=shades, vmin=0, vmax=1, edgecolor=look.paper, linewidth=1 if n <= 15 else 0.3)
        if n <= (8 if narrow else 15):
            for i, j in zip(*np.nonzero(share >= 0.005), strict=True):
                red, green, blue, _ = shades(share[i, j])
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
                colour = "#ffffff" if dark else "#111111"
                axes.text(j + 0.5, i + 0.5, f"{100 * share[i, j]:.0f}", ha="center", va="center", color=colour)
        labels = [plain(text, 12 if narrow else 20) for text in class_names]
        size = 9.5 if n <= 15 else 7.5
        axes.set_xticks(np.arange(n) + 0.5, labels, rotation=45, ha="right", color=look.ink, size=size)
        axes.set_yticks(np.arange(n) + 0.5, labels, color=look.ink, size=size)
        axes.invert_yaxis()
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    right = float(np.trace(counts) / max(counts.sum(), 1e-9))
    alt = f"Confusion matrix of {n} classes; {100 * right:.1f} % of the videos lie on the diagonal."
    if pairs := confused_pairs(confusion_table(counts, class_names)):
        worst = pairs[0]
        alt += f" Most often {worst['true_class']} is taken for {worst['predicted_class']}."
    return Chart(
        draw,
        name=name,
        title=title,
        caption=f"{about} Percent of the videos of each true class; a mean over seeds.",
        alt=alt,
        data=confusion_table(counts, class_names),
        height=min(7.5, 2.4 + 0.42 * n) if n > 15 else 2.0 + 0.42 * n,
        narrow_height=min(4.4, 2.4 + 0.3 * n),
    )
