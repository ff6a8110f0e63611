"""All experiments of the paper on UT-Interaction, from a warm cache, and the report of them in the README.

    python bench/experiments.py            # trains what is not trained yet (half an hour on 2 cores), then writes
    python bench/experiments.py --write    # only writes, from the run that is there

Needs UT-Interaction below $DYNAPROP_DATA, its features (`dynaprop extract ut-interaction`), and Chromium for the
picture. Writes experiments.json (minutes, comparisons), experiments.png (the report's first screen) and the README's
section.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from selenium import webdriver
from selenium.webdriver.common.by import By

from dynaprop.heads.evaluation.summary import PAPER_NAMES
from dynaprop.heads.runs.names import find_run
from dynaprop.pipeline.machine import usable_cores
from dynaprop.pipeline.workspace import home

HERE = Path(__file__).resolve().parent
DATASET, SEEDS = "ut-interaction", 5
DATA = HERE / "experiments.json"


def main() -> None:
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    if "--write" not in sys.argv[1:]:
        began = time.monotonic()
        _dynaprop("sweep", DATASET, "--experiment", "all", "--recipe", "lite", "--seeds", str(SEEDS))
        data["minutes"] = round((time.monotonic() - began) / 60, 1)
        data["cores"] = usable_cores()
    _dynaprop("report", DATASET)
    run = find_run(DATASET, home() / "runs", [DATASET])
    assert isinstance(run, Path)
    comparisons = pd.read_parquet(run / "figures" / "comparisons-ut-interaction-test.parquet")
    _picture(run / "report.html")
    data["comparisons"] = json.loads(comparisons.to_json(orient="records", double_precision=4))
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    _write_readme(comparisons, data)


def _dynaprop(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dynaprop.flows.cli", *arguments], check=True)


def _picture(page: Path) -> None:
    """The page from its top to the end of the accuracy/cost curve."""
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,800"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))) as browser:
        browser.get(page.as_uri())
        curve = browser.find_element(By.TAG_NAME, "figure").rect
        browser.set_window_size(1000, round(curve["y"] + curve["height"]) + 180)
        browser.get(page.as_uri())
        browser.save_screenshot(str(HERE / "experiments.png"))


def _write_readme(comparisons: pd.DataFrame, data: dict[str, object]) -> None:
    """Differences with the interval over videos, a row a baseline and a column a Dynamic-STE."""
    frames = [f"{n_s} + {n_t}" for n_s, n_t in zip(comparisons["n_s"], comparisons["n_t"], strict=True)]
    cells = [
        f"{100 * row.difference:+.1f} [{100 * row.videos_low:+.1f}, {100 * row.videos_high:+.1f}] {row.verdict}"
        for row in comparisons.itertuples()
    ]
    table = comparisons.assign(frames=frames, cell=cells).pivot(index="baseline", columns="frames", values="cell")
    table = table[sorted(table.columns, key=lambda name: int(name.split()[0]))]
    lines = [
        "| top-1 of Dynamic-STE minus | " + " | ".join(table.columns) + " |",
        "| --- |" + " ---: |" * len(table.columns),
    ]
    for model in [name for name in PAPER_NAMES if name in table.index]:
        where = "" if model.startswith("static") else ", equal cost"
        lines.append(f"| {PAPER_NAMES[model]}{where} | " + " | ".join(table.loc[model].fillna("")) + " |")
    took = f"All six experiments with {SEEDS} seeds took {data['minutes']} minutes on {data['cores']} cores."
    section = "\n".join(["<!-- experiments -->", *lines, "", took, "<!-- /experiments -->"])
    readme = HERE.parent / "README.md"
    pattern = "<!-- experiments -->.*<!-- /experiments -->"
    readme.write_text(
        re.sub(pattern, lambda _: section, readme.read_text(encoding="utf-8"), flags=re.S), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
