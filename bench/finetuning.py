"""Dynamic-STE fine-tuned end to end on UT-Interaction, given split, beside the frozen features that it begins with.

    python -m bench.finetuning            # trains what is not trained yet, then writes
    python -m bench.finetuning --write    # only writes, from the runs that are there
    python -m bench.finetuning --table    # only the README's section, from finetuning.json

Needs UT-Interaction below $DYNAPROP_DATA and its features (`dynaprop extract ut-interaction`). Writes finetuning.json,
finetuning.png (the loss curves) and the README's section, whose marks `<!-- finetuning -->` it needs.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from dynaprop.heads.evaluation.metric import Interval, mean_interval
from dynaprop.heads.evaluation.summary import paired_difference
from dynaprop.heads.report.backbones import Tuned
from dynaprop.pipeline.workspace import home

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
DATASET, RECIPE, SEEDS, N_S, N_T = "ut-interaction", "lite-small", 3, 16, 4
FRAMES = ["--n-s", str(N_S), "--n-t", str(N_T)]
DYNAMIC = {"model": "dynamic", "n_s": N_S, "n_t": N_T, "losses": "vid+frm+cos", "fusion_s": True, "fusion_t": True}
ROWS = {"frozen": DYNAMIC | {"recipe": RECIPE}, "fine-tuned": DYNAMIC | {"recipe": f"{RECIPE}-finetuned"}}


def main() -> None:
    if "--table" in sys.argv[1:]:
        fill(json.loads((HERE / "finetuning.json").read_text(encoding="utf-8")))
        return
    if "--write" not in sys.argv[1:]:
        frozen = _command("train", "--seeds", str(SEEDS))
        for seed in range(SEEDS):
            tuned = _command("finetune", "--init", str(frozen), "--seed", str(seed))
        (HERE / "finetuning.json").write_text(json.dumps({"runs": [frozen.name, tuned.name]}) + "\n", encoding="utf-8")
    runs = [
        Path(str(home())) / "runs" / name
        for name in json.loads((HERE / "finetuning.json").read_text(encoding="utf-8"))["runs"]
    ]
    data = measured(*runs) | {"runs": [run.name for run in runs], "dataset": DATASET, "n_s": N_S, "n_t": N_T}
    (HERE / "finetuning.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    plot(runs[1], HERE / "finetuning.png")
    fill(data)


def fill(data: dict[str, Any]) -> None:
    """Write the README's section."""
    text = README.read_text(encoding="utf-8")
    section = f"<!-- finetuning -->\n{table(data)}\n<!-- /finetuning -->"
    pattern = "<!-- finetuning -->.*<!-- /finetuning -->"
    filled, count = re.subn(pattern, lambda _: section, text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{README} has {count} sections between the marks of finetuning, not one")
    README.write_text(filled, encoding="utf-8")


def measured(frozen: Path, tuned: Path) -> dict[str, Any]:
    """Means over the seeds that both runs have, and the difference with an interval over videos."""
    results, predictions = (
        pd.concat([pd.read_parquet(run / f"{name}.parquet") for run in (frozen, tuned)], ignore_index=True)
        for name in ("results", "predictions")
    )
    data: dict[str, Any] = {}
    for name, chosen in ROWS.items():
        rows = _select(results, chosen).drop_duplicates("seed")
        data[name] = {
            metric: list(rows.sort_values("seed")[metric]) for metric in ("seed", "top1", "map", "gmacs_measured")
        }
    difference = paired_difference(predictions, ROWS["fine-tuned"], ROWS["frozen"])
    data["difference"] = [difference.estimate, difference.low, difference.high]
    logs = [pd.read_parquet(path) for path in sorted(tuned.glob("epochs-seed*.parquet"))]
    data["epochs"] = logs[0].groupby("stage").size().to_dict()
    data["minutes_a_seed"] = [float(log["seconds"].sum() / 60) for log in logs]
    return data


def table(data: dict[str, Any]) -> str:
    """The README's section."""
    lines = [
        "| Dynamic-STE | seeds | top-1 % | mAP % | GMACs |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in ROWS:
        one = data[name]
        top1, mean_ap = (mean_interval([100 * value for value in one[metric]]) for metric in ("top1", "map"))
        gmacs = sum(one["gmacs_measured"]) / len(one["gmacs_measured"])
        lines.append(
            f"| {name} backbones | {len(one['seed'])} | {top1.estimate:.1f} ± {_half(top1):.1f} "
            f"| {mean_ap.estimate:.1f} ± {_half(mean_ap):.1f} | {gmacs:.2f} |"
        )
    tuned = comparison(data)
    videos, seeds = (
        f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]" for interval in (tuned.over_videos, tuned.over_seeds)
    )
    epochs = data["epochs"]
    lines += [
        "",
        f"Fine-tuned minus frozen: {100 * tuned.over_videos.estimate:+.1f} points of top-1, {videos} over videos and\n"
        f"{seeds} over seeds: {tuned.verdict}.\n"
        f"{epochs.get('teacher', 0)} epochs of stage 1 and {epochs['student']} of stage 2 took "
        f"{min(data['minutes_a_seed']):.0f} to {max(data['minutes_a_seed']):.0f} minutes a seed.",
    ]
    return "\n".join(lines)


def comparison(data: dict[str, Any]) -> Tuned:
    """As the report makes it."""
    before, after = (dict(zip(data[name]["seed"], data[name]["top1"], strict=True)) for name in ROWS)
    return Tuned(
        recipe=str(ROWS["fine-tuned"]["recipe"]),
        frozen=RECIPE,
        model="dynamic",
        n_s=N_S,
        n_t=N_T,
        seeds=len(before),
        over_videos=Interval(*data["difference"]),
        over_seeds=mean_interval([after[seed] - before[seed] for seed in before]),
    )


def plot(tuned: Path, file: Path) -> None:
    """Loss over epochs, a line a seed, a panel a stage."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for path in sorted(tuned.glob("epochs-seed*.parquet")):
        log = pd.read_parquet(path)
        seed = path.stem.removeprefix("epochs-")
        for panel, (stage, loss) in zip(
            panels, (("teacher", "L_t, eq. (4)"), ("student", "L_s, eq. (5)")), strict=True
        ):
            rows = log[log["stage"] == stage]
            panel.plot(rows["epoch"], rows["loss"], marker=".", label=seed)
            panel.set(title=f"Stage {1 if stage == 'teacher' else 2}: {stage}", xlabel="epoch", ylabel=loss)
    panels[0].legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _command(name: str, *options: str) -> Path:
    """Run a command; returns its run's folder."""
    command = [sys.executable, "-m", "dynaprop.flows.cli", name, DATASET, "--recipe", RECIPE, *FRAMES, *options]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r"^results: (.+)/results.parquet$", said, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{name} did not say where its results are:\n{said}")
    return Path(found[1])


def _select(results: pd.DataFrame, chosen: dict[str, Any]) -> pd.DataFrame:
    for column, value in chosen.items():
        results = results[results[column] == value]
    return results


def _half(interval: Any) -> float:
    return float(interval.high - interval.low) / 2


if __name__ == "__main__":
    main()
