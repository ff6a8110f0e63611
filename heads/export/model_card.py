"""The model card of an exported model, from what its run has measured; nothing else is said."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from dynaprop.heads.evaluation.chance import LEVELS
from dynaprop.heads.evaluation.summary import PAPER_NAMES, summarise
from dynaprop.heads.export.record import ModelRecord
from dynaprop.heads.runs.checkpoint import CheckpointInfo
from dynaprop.heads.runs.kept import Kept
from dynaprop.pipeline.printable import printable

_LEVEL_NAMES = {
    "largest_class": "top-1 % of always answering the largest class",
    "chance": "top-1 % of chance",
    "chance_map": "mAP % of chance",
}
_WEAKEST = 20  # classes listed where there are many


def model_card(
    record: ModelRecord,
    *,
    settings: dict[str, Any],
    kept: Kept,
    info: CheckpointInfo,
    results: pd.DataFrame,
    per_class: pd.DataFrame,
) -> str:
    """Markdown.

    Args:
        record: of the exported model.
        settings: the run's ``run.json``.
        kept: which of the run's models it is.
        info: of its checkpoint.
        results: rows of ``results.parquet`` of this setting and kind of split: all seeds, all folds.
        per_class: rows of ``per_class.parquet`` of this very model; may be empty.
    """
    dataset = settings.get("dataset", "unknown")
    label = PAPER_NAMES[kept.model] + kept.variant.replace("-", " ")
    return (
        "\n\n".join(
            [
                f"# {label} on {dataset}",
                f"An action recogniser of {len(record.class_names)} classes, exported by dynaprop from the run "
                f"`{record.run}`. Of a video it looks at {_frames(record)}.",
                _model(record, info),
                _data(record, settings, kept, results),
                _metrics(kept, results),
                _classes(record, per_class),
                _costs(record, results),
                _limits(record, results),
                _use(record),
            ]
        ).rstrip()
        + "\n"
    )


def _model(record: ModelRecord, info: CheckpointInfo) -> str:
    lines = ["## Model", "", "| branch | backbone (timm) | pixels | frames | GMACs a frame | features |"]
    lines += ["| --- | --- | ---: | ---: | ---: | --- |"]
    counts = {"student": record.n_s, "teacher": record.n_t}
    for branch, backbone in record.backbones.items():
        lines.append(
            f"| {branch} | {backbone.model} | {backbone.size} | {counts[branch]} | {backbone.gmacs:.3f} | "
            f"`{backbone.feature_key}` |"
        )
    options = ", ".join(f"{name} {_plain(value)}" for name, value in info.hyper_parameters.items())
    lines += ["", f"Heads: {record.model.kind}, seed {record.seed}; {options}."]
    grid = record.grid
    lines += [
        "",
        f"Clips of {grid.clip_seconds:g} s; shorter ones where a video has fewer than {grid.min_clips}, longer ones "
        f"where it has more than {grid.max_clips}. Frames: {record.resize}.",
    ]
    return "\n".join(lines)


def _data(record: ModelRecord, settings: dict[str, Any], kept: Kept, results: pd.DataFrame) -> str:
    own = _own(kept, results)
    split = f"`{kept.split}`" + ("" if kept.fold is None else f", fold {kept.fold}")
    missing = len(settings.get("missing", []))
    lines = ["## Data", "", f"Dataset `{settings.get('dataset', 'unknown')}`, split {split}."]
    if own is not None:
        evaluated, absent = int(own["n_videos"]), int(own["n_missing"])
        lines[-1] += (
            f" Evaluated on {evaluated} of {evaluated + absent} test videos; they took no part in the training."
        )
    if missing:
        lines[-1] += f" {missing} videos of the dataset could not be used."
    lines += ["", f"Classes: {', '.join(map(_plain, record.class_names))}."]
    return "\n".join(lines)


def _metrics(kept: Kept, results: pd.DataFrame) -> str:
    lines = ["## Metrics", ""]
    own = _own(kept, results)
    if own is None:
        return "\n".join([*lines, "The run has no results of this model."])
    (mean,) = summarise(results).to_dict("records")
    n_seeds = int(mean["seeds"])
    lines += [f"| on the test videos | this model | mean of {n_seeds} seed{'s' if n_seeds > 1 else ''} |"]
    lines += ["| --- | ---: | ---: |"]
    n_videos = int(own["n_videos"])
    over_videos = binomtest(round(own["top1"] * n_videos), n_videos).proportion_ci(method="wilson")
    spread = f" [{100 * over_videos.low:.1f}, {100 * over_videos.high:.1f}]"
    lines.append(f"| top-1 % | {100 * own['top1']:.1f}{spread} | {_interval(mean, 'top1')} |")
    lines.append(f"| mAP % | {100 * own['map']:.1f} | {_interval(mean, 'map')} |")
    if set(LEVELS) <= set(own):  # runs of earlier versions lack them
        for column, name in _LEVEL_NAMES.items():
            lines.append(f"| {name} | {100 * own[column]:.1f} | {100 * mean[column]:.1f} |")
    notes = ["mAP as AR-Net computes it.", "[] is Wilson's 95 % interval over test videos."]
    if own.get("largest_class", 0.0) >= over_videos.low:
        notes.append("This model is NOT shown to be above always answering the largest class.")
    if n_seeds > 1:
        notes.append("± is half a 95 % interval over seeds, which retrain the model on the same videos.")
    else:
        notes.append("There is one seed, so no interval over seeds.")
    if kept.fold is not None:
        notes.append("The mean is over all folds, this model's figures are of its own fold.")
    return "\n".join([*lines, "", " ".join(notes)])


def _classes(record: ModelRecord, per_class: pd.DataFrame) -> str:
    lines = ["## Classes", ""]
    tested = per_class[per_class["n_videos"] > 0] if len(per_class) else per_class
    if tested.empty:
        return "\n".join([*lines, "The run has no results by class of this model."])
    shown = tested.sort_values("recall", kind="stable").head(_WEAKEST)
    what = f"The {_WEAKEST} classes with the lowest recall" if len(tested) > _WEAKEST else "All tested classes"
    lines += [f"{what}, worst first.", "", "| class | test videos | recall % | average precision % |"]
    lines += ["| --- | ---: | ---: | ---: |"]
    for row in shown.to_dict("records"):
        lines.append(
            f"| {_plain(row['class_name'])} | {int(row['n_videos'])} | {100 * row['recall']:.0f} | "
            f"{100 * row['average_precision']:.0f} |"
        )
    if untested := len(record.class_names) - len(tested):
        lines += ["", f"{untested} classes have no test video: nothing is known of them."]
    return "\n".join(lines)


def _costs(record: ModelRecord, results: pd.DataFrame) -> str:
    lines = [
        "## Costs",
        "",
        f"{record.gmacs:.2f} GMACs a video with all its frames, counted on the networks at the resolution they see, "
        "heads included.",
    ]
    if record.gflops_paper is None:
        lines.append("There is no published figure for these backbones.")
    else:
        lines.append(f"By the published figures a frame: {record.gflops_paper:.1f} GFLOPs.")
    if len(results) and (spent := float(results["gmacs_measured"].mean())) < 0.995 * record.gmacs:
        lines.append(f"The test videos took {spent:.2f} GMACs on average, as short ones have fewer frames.")
    return "\n".join([*lines[:2], " ".join(lines[2:])])


def _limits(record: ModelRecord, results: pd.DataFrame) -> str:
    lines = [
        "## Limits",
        "",
        f"- It always names one of its {len(record.class_names)} classes, whatever the video shows; it has no class "
        "for anything else.",
        "- Its probabilities were not calibrated.",
        "- What was measured holds for videos like those of the dataset; no others were tried.",
        "- One video, one action: where something begins and ends is not found.",
    ]
    if len(results) and (results["n_videos"].iloc[0] < 100):
        lines.append(f"- {int(results['n_videos'].iloc[0])} test videos are few: small differences mean nothing.")
    lines.append("- Rights to weights and videos are those of their owners; dynaprop records none.")
    return "\n".join(lines)


def _use(record: ModelRecord) -> str:
    onnx = f"\n\nFor other runtimes: {', '.join(f'`{name}`' for name in sorted(record.onnx_sha256))}." * bool(
        record.onnx_sha256
    )
    return (
        "## Use\n\n```console\n$ dynaprop predict FOLDER video.mp4\n```\n\n```python\nimport dynaprop\n\n"
        'with dynaprop.load("FOLDER") as model:\n    (prediction,) = model.predict(["video.mp4"])\n'
        f"print(prediction.top)\n```{onnx}"
    )


def _own(kept: Kept, results: pd.DataFrame) -> dict[Any, Any] | None:
    """The row of this very model."""
    rows = results[results["seed"] == kept.seed] if len(results) else results
    if kept.fold is not None and len(rows):
        rows = rows[rows["fold"] == kept.fold]
    return rows.to_dict("records")[0] if len(rows) else None


def _frames(record: ModelRecord) -> str:
    both = [f"{n} frames for the {branch}" for branch, n in (("student", record.n_s), ("teacher", record.n_t)) if n]
    return " and ".join(both)


def _interval(row: dict[Any, Any], metric: str) -> str:
    half = row[metric] - row[f"{metric}_low"]
    return f"{100 * row[metric]:.1f}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")


def _plain(value: object) -> str:
    """A value in a line of Markdown: nothing of it is markup."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "/".join(map(str, value))
    text = " ".join(f"{value:g}".split() if isinstance(value, float) else str(value).split())
    return "".join(f"\\{character}" if character in "\\|`*[]<>#&_~$" else character for character in printable(text))
