"""The README's tables: all baselines on UT-Interaction, on folds by sequence and on the given split.

    python bench/baselines.py            # trains what is not trained yet (an hour on 2 cores), then writes
    python bench/baselines.py --write    # only writes, from the runs that are there

Needs UT-Interaction below $DYNAPROP_DATA and its features (`dynaprop extract ut-interaction`). Recipe `lite` has the
paper's hyper-parameters; `lite-small` has smaller batches, chosen by choose_settings.py inside the training lists, and
is measured on the folds. Writes baselines.json, baselines.png and the README's section.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from dynaprop.heads.evaluation.summary import PAPER_NAMES, paired_difference, summarise
from dynaprop.heads.experiments.units import Units
from dynaprop.pipeline.workspace import open_workspace

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
DATASET, SWEEP, FOLDS, N_S, N_T = "ut-interaction", "baselines", 5, 16, 4
GIVEN, BY_SEQUENCE = ("given split", "test", 0), (f"{FOLDS} folds by sequence", f"{FOLDS}-fold", FOLDS)
PARTS = [("lite", *BY_SEQUENCE), ("lite", *GIVEN), ("lite-small", *BY_SEQUENCE)]
DYNAMIC = {"model": "dynamic", "n_s": N_S, "n_t": N_T}


def main() -> None:
    parts = []
    for recipe, title, split, folds in PARTS:
        if "--write" not in sys.argv[1:]:
            options = ["--recipe", recipe, "--sweep", SWEEP, "--folds", str(folds)]
            subprocess.run([sys.executable, "-m", "dynaprop.flows.cli", "sweep", DATASET, *options], check=True)
        run = Units(open_workspace(DATASET, recipe)).run
        run.collect()
        results, predictions = (pd.read_parquet(run.path / f"{name}.parquet") for name in ("results", "predictions"))
        chosen = [frame[(frame["split"] == split) & _asked(frame)] for frame in (results, predictions)]
        parts.append({"recipe": recipe, "title": title} | _part(*chosen))
    data = {"dataset": DATASET, "n_s": N_S, "n_t": N_T, "parts": parts}
    (HERE / "baselines.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    _plot(parts[0])
    _write_readme(parts)


def _asked(frame: pd.DataFrame) -> pd.Series:
    return frame["n_s"].isin([0, N_S]) & frame["n_t"].isin([0, N_T, N_S])


def _part(results: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Any]:
    """Means with intervals over seeds, and Dynamic-STE minus every other line with intervals over videos."""
    lines = []
    for row in summarise(results).to_dict("records"):
        other = {name: row[name] for name in ("model", "n_s", "n_t")}
        gap = None if other == DYNAMIC else paired_difference(predictions, DYNAMIC, other)
        keep = ["top1", "top1_low", "top1_high", "map", "map_low", "map_high", "gmacs_measured", "n_s_used", "n_t_used"]
        line = other | {name: round(row[name], 4) for name in keep}
        lines.append(line | {"dynamic_minus": gap and [round(x, 4) for x in (gap.estimate, gap.low, gap.high)]})
    return {"seeds": int(results["seed"].nunique()), "videos": int(row["n_videos"]), "lines": lines}


def _label(line: dict[str, object]) -> str:
    frames = {"teacher": f" {line['n_t']}"}.get(str(line["model"]), "")
    return PAPER_NAMES[str(line["model"])] + frames


def _write_readme(parts: list[dict[str, Any]]) -> None:
    text = []
    for part in parts:
        text += [
            f"**{part['title']}**, recipe `{part['recipe']}`, {part['videos']} test videos, {part['seeds']} seeds",
            "",
            "| model | n_s | n_t | top-1 % | mAP % | GMACs | Dynamic-STE minus it |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for line in part["lines"]:
            cells = [_label(line), line["n_s"] or "-", line["n_t"] or "-"]
            for metric in ("top1", "map"):
                cells.append(f"{100 * line[metric]:.1f} ± {100 * (line[f'{metric}_high'] - line[metric]):.1f}")
            gap = line["dynamic_minus"]
            cells.append(f"{line['gmacs_measured']:.2f}")
            cells.append(f"{100 * gap[0]:+.1f} [{100 * gap[1]:+.1f}, {100 * gap[2]:+.1f}]" if gap else "")
            text.append("| " + " | ".join(map(str, cells)) + " |")
        text.append("")
    readme = HERE.parent / "README.md"
    section = "<!-- baselines -->\n" + "\n".join(text) + "<!-- /baselines -->"
    old = readme.read_text(encoding="utf-8")
    readme.write_text(
        re.sub(r"<!-- baselines -->.*<!-- /baselines -->", lambda _: section, old, flags=re.S),
        encoding="utf-8",
    )


def _plot(part: dict[str, Any]) -> None:
    """Accuracy over cost on the folds, a point a model."""
    lines = [line for line in part["lines"] if line["model"] != "dynamic-shuffled"]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for line in lines:
        y, x = 100 * line["top1"], line["gmacs_measured"]
        error = [[y - 100 * line["top1_low"]], [100 * line["top1_high"] - y]]
        dynamic = line["model"] == "dynamic"
        colour = "#c2410c" if dynamic else "#475569"
        axes.errorbar(x, y, yerr=error, fmt="D" if dynamic else "o", color=colour, capsize=3, ms=7)
        axes.annotate(_label(line), (x, y), xytext=(8, 4), textcoords="offset points", fontsize=9, color=colour)
    axes.set_xlabel("multiply-adds a video, backbones and heads (GMACs)")
    axes.set_ylabel("top-1 (%)")
    axes.set_title(f"UT-Interaction, {FOLDS} folds by sequence, frozen lite backbones", fontsize=10)
    axes.margins(x=0.18, y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "baselines.png", dpi=150)


if __name__ == "__main__":
    main()
