"""Accuracy over cost, as in Figure 4: a line a model, and the published points apart, drawn hollow."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dynaprop.heads.evaluation.published import DATASET_NAMES, family_of, published_rows
from dynaprop.heads.evaluation.summary import PAPER_NAMES, summarise
from dynaprop.heads.model.setting import MODELS
from dynaprop.heads.report.chart import MARKERS, Chart, Look, grid_of
from dynaprop.heads.report.compare import Metric
from dynaprop.heads.report.rows import experiments
from dynaprop.heads.report.tables import METRIC_NAMES


def curve_experiment(rows: pd.DataFrame) -> str:
    """The experiment to draw: Figure 4 where there is one, else the one with most settings."""
    names = [name for name in experiments(rows) if name not in ("table4", "table5")] or experiments(rows)
    if "figure4" in names:
        return "figure4"
    settings = {
        name: len(rows[rows["experiment"] == name].drop_duplicates(["recipe", "model", "n_s", "n_t"])) for name in names
    }
    return max(names, key=settings.__getitem__)


def cost_curve(results: pd.DataFrame, *, dataset: str, metric: Metric, name: str, about: str) -> Chart:
    """Draw the models over their measured cost.

    Args:
        results: rows of one part, experiment and recipe.
        dataset: decides which published rows stand beside.
        metric: the headline, ``top1`` or ``map``.
        name: stem of its files.
        about: how the description calls the test videos.
    """
    recipe = str(results["recipe"].iloc[0])
    chosen = results[results["model"] != "dynamic-shuffled"]
    fused = chosen["fusion_s"].fillna(True) & chosen["fusion_t"].fillna(True)
    points = summarise(chosen[fused]).assign(published=False)
    points = points.drop_duplicates(["model", "n_s", "n_t"]).sort_values("gmacs_measured")
    paper = _published(family_of(results["feature_key"].iloc[0]), dataset)
    whole = points[(points["model"] == "dynamic") & points["gflops_paper"].notna()]
    comparable = whole[[dataset == paper["dataset"].iloc[0] and metric == paper["metric"].iloc[0]] * len(whole)]

    def draw(figure: Figure, look: Look, narrow: bool) -> None:
        grid = (2, 1) if narrow else (1, 2)
        ratios = {"height_ratios": (1.25, 1)} if narrow else {"width_ratios": (1.7, 1)}
        ours, theirs = figure.subplots(*grid, gridspec_kw=ratios)
        _draw_ours(ours, points, look, metric)
        _draw_published(theirs, paper, look)
        if len(comparable):
            _draw_among_published(theirs, comparable, look, metric)
        handles, labels = ours.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if narrow else 3, fontsize=9)

    best = points.loc[points[metric].idxmax()]
    alt = (
        f"{METRIC_NAMES[metric]} over measured multiply-adds a video on {about}, {len(points)} points of "
        f"{points['model'].nunique()} models. Highest: {PAPER_NAMES[best['model']]} with {100 * best[metric]:.1f} % at "
        f"{best['gmacs_measured']:.2f} GMACs. All figures stand in the tables below."
    )
    spread = "with 95 % intervals over seeds" if points["seeds"].max() > 1 else "of a single seed, without intervals"
    where = DATASET_NAMES[paper["dataset"].iloc[0]]
    among = " Filled: our Dynamic-STE, measured on the same data set." if len(comparable) else ""
    caption = (
        f"Measured here: {METRIC_NAMES[metric]} {spread}, over the multiply-adds counted for the frames really "
        f"used. Hollow: published on {where}, not measured here; that axis is the paper's own count.{among}"
    )
    published = paper.assign(published=True, recipe=recipe).rename(columns={"gflops": "gflops_paper"})
    published[["top1", "map"]] = [
        [value / 100 if kind == m else float("nan") for m in ("top1", "map")]
        for kind, value in zip(published["metric"], published["value"], strict=True)
    ]
    columns = [*points.columns, "method", "backbone", "source"]
    data = pd.concat([points, published], ignore_index=True).reindex(columns=columns)
    return Chart(
        draw,
        name=name,
        title=f"Accuracy and cost, {recipe}",
        caption=caption,
        alt=alt,
        data=data,
        height=4.2,
        narrow_height=6.6,
    )


def _draw_ours(axes: Axes, points: pd.DataFrame, look: Look, metric: Metric) -> None:
    for model in MODELS:
        line = points[points["model"] == model]
        if line.empty:
            continue
        y = 100 * line[metric]
        spread = [y - 100 * line[f"{metric}_low"], 100 * line[f"{metric}_high"] - y]
        axes.errorbar(
            line["gmacs_measured"],
            y,
            yerr=[side.fillna(0) for side in spread],
            color=look.models[model],
            marker=MARKERS[model],
            markersize=6.5 if model == "dynamic" else 5.5,
            linewidth=2 if model == "dynamic" else 1.4,
            elinewidth=1,
            capsize=2.5,
            label=PAPER_NAMES[model],
            zorder=4 if model == "dynamic" else 3,
        )
    _cost_axis(axes, points["gmacs_measured"])
    axes.set_xlabel("GMACs a video (measured)")
    axes.set_ylabel(f"{METRIC_NAMES[metric]} %")
    axes.set_title("Measured")
    axes.margins(x=0.06, y=0.08)
    axes.set_ylim(top=min(axes.get_ylim()[1], 101))  # an interval may end above what can be
    grid_of(axes, look, axis="both")


def _draw_published(axes: Axes, paper: pd.DataFrame, look: Look) -> None:
    for row in paper.to_dict("records"):
        own = row["model"] in MODELS
        axes.plot(
            [row["gflops"]],
            [row["value"]],
            linestyle="none",
            marker=MARKERS[row["model"]] if own else "o",
            markerfacecolor="none",
            markeredgecolor=look.models[row["model"]] if own else look.muted,
            markeredgewidth=1.5,
            markersize=6.5,
        )
        if not own:
            right = row["gflops"] > 60
            axes.annotate(
                row["method"],
                (row["gflops"], row["value"]),
                xytext=(4, -11) if right else (6, 3),
                textcoords="offset points",
                ha="right" if right else "left",
                fontsize=7.5,
                color=look.muted,
            )
    _cost_axis(axes, paper["gflops"])
    metric, where = METRIC_NAMES[paper["metric"].iloc[0]], DATASET_NAMES[paper["dataset"].iloc[0]]
    axes.set_xlabel("GFLOPs a video (as published)")
    axes.set_ylabel(f"{metric} %")
    axes.set_title(f"Published, {where}", color=look.muted)
    axes.margins(x=0.1, y=0.12)
    grid_of(axes, look, axis="both")


def _draw_among_published(axes: Axes, points: pd.DataFrame, look: Look, metric: Metric) -> None:
    """Our Dynamic-STE at the cost that the paper would count."""
    axes.plot(
        points["gflops_paper"],
        100 * points[metric],
        marker=MARKERS["dynamic"],
        markersize=6.5,
        linewidth=1.6,
        color=look.models["dynamic"],
    )


def _cost_axis(axes: Axes, costs: pd.Series) -> None:
    """Logarithmic where the costs span more than a factor of ten, with plain numbers."""
    if costs.max() > 10 * costs.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())


def _published(family: str | None, dataset: str) -> pd.DataFrame:
    """The paper's rows of the dataset, or of ActivityNet, that have a cost: its models and its competitors."""
    rows = published_rows()
    rows = rows[rows["dataset"] == (dataset if dataset in DATASET_NAMES else "activitynet-1.3")]
    rows = rows[rows["table"].isin(["table1", "table2", "table3"])]
    rows = rows[(rows["backbone"] == family) | rows["model"].isna()]
    return rows.drop_duplicates(["method", "value", "gflops"])
