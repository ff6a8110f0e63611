"""Choose hyper-parameters inside training lists: no test list of UT-Interaction is read.

    python bench/choose_settings.py

For each training list of `bench/baselines.py` (five folds by sequence, and the given split) the list itself is divided
into three folds by sequence; teacher and Dynamic-STE are trained on two thirds and measured on the third, for every
setting. Writes settings.json: top-1 of Dynamic-STE by list and setting, the setting that is best on each list, and the
means; what is there is not measured again. One setting for all lists is a choice that has seen, as a training video of
some other list, every video that a fold tests on. Needs the features (`dynaprop extract ut-interaction`).
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynaprop.heads.evaluation.metric import multi_hot, top1
from dynaprop.heads.evaluation.predict import predict
from dynaprop.heads.experiments.units import Units
from dynaprop.heads.model.setting import Setting
from dynaprop.heads.training.trained_models import Options, TrainedModels
from dynaprop.pipeline.annotations.splits import Split, group_folds
from dynaprop.pipeline.workspace import open_workspace

DATASET, FOLDS, INNER = "ut-interaction", 5, 3
DYNAMIC = Setting("dynamic", n_s=16, n_t=4, losses="vid+frm+cos")
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {},
    "lr 3e-4": {"lr": 3e-4},
    "lr 1e-3": {"lr": 1e-3},
    "80 epochs": {"epochs": 80, "milestones": (30, 60)},
    "batches of 8": {"batch_size": 8},
    "gamma 2": {"gamma": 2},
    "gamma 1": {"gamma": 1},
    "batches of 4": {"batch_size": 4},
    "batches of 8, 80 epochs": {"batch_size": 8, "epochs": 80, "milestones": (30, 60)},
}
FILE = Path(__file__).resolve().parent / "settings.json"
SEED = 1000  # none of the seeds of the table


def training_lists() -> list[tuple[str, Split]]:
    """The training lists that the README's table is made with."""
    workspace = open_workspace(DATASET, "lite")
    folds, given = Units(workspace, folds=FOLDS), Units(workspace)
    return [(f"fold {split.fold}", split) for split in folds.splits] + [("given", given.splits[0])]


def validate(index: int, setting: str) -> float:
    """Mean top-1 of Dynamic-STE on the inner folds of one training list; its test list is never selected."""
    torch.set_num_threads(1)
    units = Units(open_workspace(DATASET, "lite"))
    paper = Options()  # whatever the recipe says by now
    _, split = training_lists()[index]
    listed = replace(units.annotations, videos=tuple(units.annotations.videos[video] for video in split.train))
    hits = []
    for inner in group_folds(listed, INNER):
        train, held = ([listed.videos[video].id for video in part] for part in (inner.train, inner.test))
        groups = {video.id: video.group for video in listed.videos}
        trained = TrainedModels(
            units.features_of(train),
            groups=[groups[video] for video in train],
            seed=SEED,
            options=replace(paper, **SETTINGS[setting]),
        )
        videos = units.features_of(held)
        scores = predict(trained.model(DYNAMIC), videos, n_s=DYNAMIC.n_s, n_t=DYNAMIC.n_t).probabilities
        hits.append((top1(scores, multi_hot(videos.labels, len(videos.class_names))), len(held)))
    values, weights = zip(*hits, strict=True)
    return float(np.average(values, weights=weights))


def main() -> None:
    """Measure what settings.json lacks, two at a time, and write it."""
    lists = [name for name, _ in training_lists()]
    known = json.loads(FILE.read_text(encoding="utf-8"))["top1_by_list"] if FILE.exists() else {}
    jobs = [job for job in product(range(len(lists)), SETTINGS) if job[1] not in known.get(lists[job[0]], {})]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for (index, setting), value in zip(jobs, pool.map(validate, *zip(*jobs, strict=True)), strict=True):
            print(f"{lists[index]}, {setting}: {value:.3f}", flush=True)
            known.setdefault(lists[index], {})[setting] = round(value, 4)
            _write(known)


def _write(known: dict[str, dict[str, float]]) -> None:
    whole = [setting for setting in SETTINGS if all(setting in row for row in known.values())]
    means = {setting: round(float(np.mean([row[setting] for row in known.values()])), 4) for setting in whole}
    best = {name: max(row, key=lambda setting: row[setting]) for name, row in known.items()}
    data = {"dataset": DATASET, "top1_by_list": known, "best_by_list": best, "mean_top1": means}
    FILE.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
