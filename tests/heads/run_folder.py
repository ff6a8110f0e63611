"""Run folders made up for tests of the report: every table that a run holds, from scores drawn at random."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynaprop.heads.evaluation.metric import mean_average_precision, multi_hot, per_class, top1
from dynaprop.heads.model.setting import Setting
from dynaprop.heads.runs.rows import SCHEMA_VERSION
from dynaprop.pipeline.io.parquet import publish_parquet
from dynaprop.pipeline.io.sealed import publish_record

GMACS_S, GMACS_T = 0.1, 0.6
PAPER_S, PAPER_T = 0.1, 1.8
SIGNAL = {
    "student": 1.6,
    "student-kd": 1.8,
    "teacher": 2.6,
    "static-avg": 2.3,
    "static-weighted": 2.4,
    "dynamic": 2.9,
    "dynamic-shuffled": 0.2,
}


FEATURES = {"resnet": "resnet18-112-1+resnet50-224-2", "own": "vit_small-112-1+vit_large-224-2"}
"""Feature keys by recipe, where they are not EfficientNet's."""


def ste(
    model: str, n_s: int, n_t: int, fusion_s: bool = True, fusion_t: bool = True, losses: str = "vid+frm+cos"
) -> Setting:
    """A model of two branches."""
    return Setting(model, n_s, n_t, fusion_s, fusion_t, losses)


def single(model: str, n: int) -> Setting:
    """A model of one branch."""
    losses = "vid+frm" if model == "student-kd" else "vid"
    return Setting(model, 0, n, None, True, losses) if model == "teacher" else Setting(model, n, 0, True, None, losses)


def ensembles(n_s: int, n_t: int) -> list[Setting]:
    static = [ste(model, n_s, n_t, losses="vid+frm") for model in ("static-avg", "static-weighted")]
    return [*static, ste("dynamic", n_s, n_t)]


TABLE3 = [single("teacher", 20), single("teacher", 5), single("student", 20), single("student-kd", 20)]
TABLE3 += ensembles(20, 5)
TABLE4 = [ste("dynamic", 20, 5, s, t) for s in (False, True) for t in (False, True)]
TABLE5 = [ste("dynamic", 20, 5, losses=losses) for losses in ("vid", "vid+frm", "vid+cos", "vid+frm+cos")]
FIGURE4 = [single("teacher", n) for n in (5, 10, 15, 20)]
FIGURE4 += [single(model, n) for model in ("student", "student-kd") for n in (20, 40, 60, 80)]
FIGURE4 += [setting for n_t in (5, 7, 9, 11) for setting in ensembles(4 * n_t, n_t)]
PAPER = {"table3": TABLE3, "table4": TABLE4, "table5": TABLE5, "figure4": FIGURE4}


def write_run(
    folder: Path,
    *,
    experiments: dict[str, list[Setting]] = PAPER,
    dataset: str = "made-up",
    recipe: str = "lite",
    class_names: Sequence[str] = tuple("abcdef"),
    videos_per_class: int = 5,
    seeds: int = 3,
    splits: Iterable[tuple[str, int | None]] = (("test", None),),
    missing: Sequence[str] = (),
    frame_scores: bool = True,
    published_costs: bool = True,
    video_ids: Sequence[str] = (),
) -> Path:
    """Write a run folder and return it.

    Args:
        folder: where.
        experiments: settings by experiment.
        dataset, recipe, class_names, videos_per_class, seeds, missing: of the run.
        splits: (name, fold) pairs; each fold has its own videos.
        frame_scores: whether there is a ``frame_scores.parquet``.
        published_costs: whether the recipe has published costs a frame.
        video_ids: names of the first videos; the others are made up.
    """
    tables: dict[str, list[pd.DataFrame]] = {"results": [], "predictions": [], "per_class": [], "frame_scores": []}
    for split, fold in splits:
        labels = [(c,) for c in range(len(class_names)) for _ in range(videos_per_class)]
        part = split if fold is None else f"{split}{fold}"
        ids = [f"{name}/{part}-{i}.mp4" for name in class_names for i in range(videos_per_class)]
        ids[: len(video_ids)] = video_ids
        targets = multi_hot(labels, len(class_names))
        for experiment, settings in experiments.items():
            for number, setting in enumerate(settings):
                for seed in range(seeds):
                    rng = np.random.default_rng([number, seed, fold or 0])
                    signal = SIGNAL[setting.model] + 0.01 * (setting.n_s + 3 * setting.n_t)
                    logits = rng.normal(size=targets.shape) + signal * targets
                    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
                    key = {
                        "dataset": dataset,
                        "split": split,
                        "fold": fold,
                        "experiment": experiment,
                        "recipe": recipe,
                        **vars(setting),
                        "options_digest": "0" * 12,
                        "feature_key": FEATURES.get(recipe, "tf_efficientnet_lite0-112-1+tf_efficientnet_lite2-224-2"),
                        "seed": seed,
                        "run_id": folder.name,
                        "schema_version": SCHEMA_VERSION,
                    }
                    paper = PAPER_S * setting.n_s + PAPER_T * setting.n_t
                    row: dict[str, Any] = {
                        "top1": top1(scores, targets),
                        "top1_first_label": top1(scores, targets),
                        "map": mean_average_precision(scores, targets),
                        "gflops_paper": paper if published_costs else None,
                        "gmacs_measured": GMACS_S * setting.n_s + GMACS_T * setting.n_t,
                        "n_s_used": float(setting.n_s),
                        "n_t_used": setting.n_t - 0.5 if setting.n_t > 15 else float(setting.n_t),
                        "n_videos": len(ids),
                        "n_missing": len(missing),
                        "seconds": 1.0,
                        "weight_s": None,
                        "weight_t": None,
                    }
                    videos = {"video_id": ids, "labels": [list(one) for one in labels]}
                    videos |= {"predicted": scores.argmax(axis=1), "scores": list(scores.astype(np.float32))}
                    tables["results"].append(pd.DataFrame([key | row]))
                    tables["predictions"].append(pd.DataFrame(videos).assign(**key))
                    tables["per_class"].append(per_class(scores, targets, class_names).assign(**key))
                    if seed == 0 and setting.model in ("student", "teacher", "dynamic") and setting.n_s <= 20:
                        truth = [class_names[c] for (c,) in labels]
                        tables["frame_scores"].append(_frames(setting, ids, truth, class_names, rng).assign(**key))
    types = {"fold": "Int64", "fusion_s": "boolean", "fusion_t": "boolean"}
    for name, frames in tables.items():
        if frames and (name != "frame_scores" or frame_scores):
            publish_parquet(folder / f"{name}.parquet", pd.concat(frames, ignore_index=True).astype(types))
    settings = {"dataset": dataset, "recipe": {"name": recipe}, "feature_keys": {}, "store": "stores/none"}
    publish_record(folder / "run.json", settings | {"classes": list(class_names), "missing": list(missing)})
    return folder


def _frames(
    setting: Setting, ids: Sequence[str], truth: Sequence[str], class_names: Sequence[str], rng: np.random.Generator
) -> pd.DataFrame:
    rows = []
    for number, (video, true) in enumerate(zip(ids, truth, strict=True)):
        for branch, n in (("student", setting.n_s), ("teacher", setting.n_t)):
            for seconds in np.linspace(0, 10, n):
                # Of Dynamic-STE: best in the first video, worst in the last one.
                best = 0.9 - 0.8 * number / len(ids) if setting.model == "dynamic" else 0.5
                rows.append(
                    {
                        "video_id": video,
                        "timestamp": seconds,
                        "branch": branch,
                        "true_class": true,
                        "true_probability": float(np.clip(best + 0.05 * rng.normal(), 0, 1)),
                        "top5": list(class_names[:5]),
                        "top5_probabilities": [0.2] * 5,
                    }
                )
    return pd.DataFrame(rows)
