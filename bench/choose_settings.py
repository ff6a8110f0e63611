"""Choose the learning rate of the `lite` recipe inside training lists: no test list of UT-Interaction is read.

    python bench/choose_settings.py

For each training list of `bench/baselines.py` (five folds by sequence, and the given split) the list itself is divided
into three folds by sequence; teacher and Dynamic-STE are trained on two thirds and measured on the third, for every
learning rate. The rest is the paper's. Writes settings.json: top-1 of Dynamic-STE by list and learning rate, and the
rate that is best on each list and on the mean of all. Needs the features (`dynaprop extract ut-interaction`).
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from flows.units import Units
from flows.workspace import open_workspace
from heads.evaluate import predict
from heads.metric import multi_hot, top1
from heads.trained import TrainedModels
from pipeline.splits import Split, group_folds

DATASET, N_S, N_T, FOLDS, INNER = "ut-interaction", 16, 4, 5, 3
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
SEED = 1000  # none of the seeds of the table


def training_lists() -> list[tuple[str, Split]]:
    """The training lists that the README's table is made with."""
    workspace = open_workspace(DATASET, "lite")
    folds, given = Units(workspace, folds=FOLDS), Units(workspace)
    return [(f"fold {split.fold}", split) for split in folds.splits] + [("given", given.splits[0])]


def validate(index: int, lr: float) -> float:
    """Mean top-1 of Dynamic-STE on the inner folds of one training list; its test list is never selected."""
    torch.set_num_threads(1)
    units = Units(open_workspace(DATASET, "lite"))
    _, split = training_lists()[index]
    listed = replace(units.annotations, videos=tuple(units.annotations.videos[video] for video in split.train))
    hits = []
    for inner in group_folds(listed, INNER):
        train, held = ([listed.videos[video].id for video in part] for part in (inner.train, inner.test))
        groups = {video.id: video.group for video in listed.videos}
        trained = TrainedModels(
            units.features_of(train),
            groups=[groups[video] for video in train],
            n_s=N_S,
            n_t=N_T,
            seed=SEED,
            options=replace(units.options, lr=lr),
        )
        videos = units.features_of(held)
        scores = predict(trained.dynamic, videos, n_s=N_S, n_t=N_T).probabilities
        hits.append((top1(scores, multi_hot(videos.labels, len(videos.class_names))), len(held)))
    values, weights = zip(*hits, strict=True)
    return float(np.average(values, weights=weights))


def main() -> None:
    """Validate every list and learning rate, two at a time, and write settings.json."""
    lists = [name for name, _ in training_lists()]
    jobs = list(product(range(len(lists)), LEARNING_RATES))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        values = list(pool.map(validate, *zip(*jobs, strict=True)))
    rows = [(lists[index], lr, value) for (index, lr), value in zip(jobs, values, strict=True)]
    table = pd.DataFrame(rows, columns=["list", "lr", "top1"]).pivot(index="list", columns="lr", values="top1")
    print(table.round(3), table.mean().round(3), sep="\n")
    data = {
        "dataset": DATASET,
        "top1_by_list": {name: {f"{lr:g}": round(row[lr], 4) for lr in table} for name, row in table.iterrows()},
        "best_by_list": {name: f"{row.idxmax():g}" for name, row in table.iterrows()},
        "mean_top1": {f"{lr:g}": round(float(value), 4) for lr, value in table.mean().items()},
        "chosen_lr": f"{table.mean().idxmax():g}",
    }
    (Path(__file__).parent / "settings.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
