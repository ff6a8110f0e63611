"""The results table on the terminal."""

import math
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from heads.summary import PAPER_NAMES, summarise


def print_results(results: pd.DataFrame, title: str) -> None:
    """Print models with their frames, top-1, mAP (mean and 95 % interval over seeds) and both costs."""
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    for name in ("n_s", "n_t", "top-1 %", "mAP %", "GFLOPs (paper)", "GMACs (measured)"):
        table.add_column(name, justify="right")
    summary = summarise(results)
    for row in summary.to_dict("records"):
        table.add_row(
            PAPER_NAMES[row["model"]],
            _frames(row["n_s"], row["n_s_used"]),
            _frames(row["n_t"], row["n_t_used"]),
            _percent(row, "top1"),
            _percent(row, "map"),
            "-" if math.isnan(row["gflops_paper"]) else f"{row['gflops_paper']:.1f}",
            f"{row['gmacs_measured']:.2f}",
        )
    missing = int(summary["n_missing"].max())
    first = summary.iloc[0]
    seeds = f"{first['seeds']} seed{'s' if first['seeds'] > 1 else ''}"
    of_all = f" of {first['n_videos'] + missing}, {missing} missing" if missing else ""
    table.caption = f"{first['n_videos']} test videos evaluated{of_all}; {seeds}; ± is half a 95 % interval over seeds"
    table.caption_justify = "left"
    print_table(table)


def print_table(table: Table) -> None:
    """Print to stdout; a file or a pipe has no width to fit in."""
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)


def _frames(asked: int, used: float) -> str:
    """Frames asked for, and the mean really used where short videos had fewer."""
    if not asked:
        return "-"
    return str(asked) if math.isclose(asked, used) else f"{asked} ({used:.1f} used)"


def _percent(row: dict[Any, Any], metric: str) -> str:
    half = row[metric] - row[f"{metric}_low"]
    spread = "" if math.isnan(half) else f" ± {100 * half:.1f}"
    return f"{100 * row[metric]:.1f}{spread}"
