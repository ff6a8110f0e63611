"""Training units: rows, keys and costs; what is trained once is shared; a run folder that goes on."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from heads.features import FeatureSplit
from heads.measure import BranchCost, measure, shuffled_teacher
from heads.results import KEY, METRICS, RunFolder
from heads.summary import paired_difference, summarise
from heads.trained import MODELS, Options, TrainedModels, trainings

CLASSES = 3


def features(videos: int, seed: int) -> FeatureSplit:
    """A teacher that sees the class, a student that sees noise; 5 to 14 clips a video."""
    rng = np.random.default_rng(seed)
    labels = np.arange(videos) % CLASSES
    counts = rng.integers(5, 15, videos)
    teacher = np.concatenate(
        [rng.normal(3 * np.eye(CLASSES, 12)[label], 1, (n, 12)) for label, n in zip(labels, counts, strict=True)]
    )
    return FeatureSplit(
        video_ids=tuple(f"{seed}/{video}" for video in range(videos)),
        labels=tuple((int(label),) for label in labels),
        class_names=("a", "b", "c"),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        student=torch.from_numpy(rng.normal(0, 1, (counts.sum(), 10))).half(),
        teacher=torch.from_numpy(teacher).half(),
        timestamps=np.concatenate([np.arange(n, dtype=float) for n in counts]),
    )


@pytest.fixture(scope="module")
def tables():
    epochs = []
    trained = TrainedModels(
        features(30, 1),
        groups=[None] * 30,
        n_s=8,
        n_t=2,
        seed=0,
        options=Options(epochs=15, lr=1e-2, key_dim=8),
        on_epoch=lambda: epochs.append(1),
    )
    key = dict.fromkeys(KEY[:5], "x") | {"fold": None, "options_digest": "o", "feature_key": "f"}
    tables = measure(
        trained,
        features(24, 2),
        models=MODELS,
        key=key,
        student_cost=BranchCost(gmacs=0.1, gflops_paper=0.1),
        teacher_cost=BranchCost(gmacs=1.0, gflops_paper=None),
        n_missing=3,
    )
    assert len(epochs) == trainings(MODELS, n_s=8, n_t=2) * 15  # what models share is trained once
    return tables


def test_every_row_has_the_contracts_columns(tables):
    assert set(KEY) | set(METRICS) <= set(tables.results.columns)
    assert not tables.results.duplicated(KEY).any()
    assert len(tables.results) == len(MODELS) + 1  # the teacher at n_s and at n_t
    assert set(KEY) <= set(tables.predictions.columns)
    assert len(tables.predictions) == 24 * len(tables.results)
    assert len(tables.per_class) == CLASSES * len(tables.results)


def test_the_teacher_helps_and_a_shuffled_one_does_not(tables):
    top1 = tables.results.groupby("model")["top1"].max()
    assert top1["dynamic"] > 0.75
    assert top1["student"] < 0.7
    assert top1["dynamic-shuffled"] < top1["dynamic"] - 0.3


def test_costs_are_those_really_spent(tables):
    row = tables.results.set_index("model").loc["dynamic"]
    assert (row["n_s"], row["n_t"]) == (8, 2)
    assert 4 < row["n_s_used"] < 8  # some videos have fewer than ten clips
    assert row["gmacs_measured"] == pytest.approx(0.1 * row["n_s_used"] + row["n_t_used"], rel=1e-3)
    assert row["gmacs_measured"] > 0.1 * row["n_s_used"] + row["n_t_used"]  # heads included
    assert pd.isna(row["gflops_paper"])
    assert tables.results.set_index("model").loc["student", "gflops_paper"] == pytest.approx(0.8)
    assert (row["n_videos"], row["n_missing"]) == (24, 3)


def test_predictions_agree_with_the_results(tables):
    for model in ("student", "dynamic", "static-weighted"):
        rows = tables.predictions[tables.predictions["model"] == model]
        right = [predicted in labels for predicted, labels in zip(rows["predicted"], rows["labels"], strict=True)]
        assert np.mean(right) == pytest.approx(tables.results.set_index("model").loc[model, "top1"])


def test_learnt_static_weights_are_kept(tables):
    rows = tables.results.set_index("model")
    assert rows.loc["static-weighted", "weight_t"] > rows.loc["static-weighted", "weight_s"] >= 0
    assert pd.isna(rows.loc["static-avg", "weight_t"])


def test_shuffling_gives_every_video_another_ones_teacher():
    split = features(7, 3)
    split = FeatureSplit(
        **{
            **vars(split),
            "teacher": torch.repeat_interleave(torch.arange(7), torch.from_numpy(np.diff(split.offsets)))[
                :, None
            ].float(),
        }
    )
    shuffled = shuffled_teacher(split, seed=0)
    owners = [set(shuffled.teacher[begin:end, 0].tolist()) for begin, end in pairwise(split.offsets)]
    assert all(len(owner) == 1 and owner != {video} for video, owner in enumerate(owners))
    assert sorted(owner.pop() for owner in owners) == list(range(7))
    assert torch.equal(shuffled.student, split.student)


def test_a_run_folder_joins_its_units_and_trusts_only_finished_ones(tables, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write("test-seed0", tables)
    run.write("another sweep, same rows", tables)
    half = run.path / "units" / "killed"
    half.mkdir()
    (half / "results.parquet").write_bytes(b"half")
    assert run.has("test-seed0")
    assert not run.has("killed")
    run.collect()
    results = pd.read_parquet(run.path / "results.parquet")
    assert len(run.results_of(["test-seed0"])) == len(tables.results)
    assert len(results) == len(tables.results)
    assert set(results["run_id"]) == {"run"}
    assert len(pd.read_parquet(run.path / "predictions.parquet")) == len(tables.predictions)
    assert len(pd.read_parquet(run.path / "per_class.parquet")) == len(tables.per_class)


def test_summary_weights_folds_and_gives_intervals_over_seeds(tables):
    row = tables.results[tables.results["model"] == "dynamic"]
    rows = pd.concat(
        [
            row.assign(seed=seed, fold=fold, top1=value, n_videos=videos)
            for seed, fold, value, videos in [(0, 0, 0.5, 10), (0, 1, 0.8, 20), (1, 0, 0.6, 10), (1, 1, 0.9, 20)]
        ]
    )
    (line,) = summarise(rows).to_dict("records")
    assert line["top1"] == pytest.approx((0.7 + 0.8) / 2)
    # Student's t with one degree of freedom: 12.706 * s / sqrt(2), s = 0.1 / sqrt(2)
    assert line["top1_high"] - line["top1"] == pytest.approx(12.706 * 0.05, rel=1e-3)
    assert (line["n_videos"], line["seeds"], line["n_missing"]) == (30, 2, 6)


def test_paired_difference_is_of_the_same_videos(tables):
    interval = paired_difference(tables.predictions, {"model": "dynamic"}, {"model": "student"}, resamples=500)
    rows = tables.results.set_index("model")["top1"]
    assert interval.estimate == pytest.approx(rows["dynamic"] - rows["student"])
    assert 0 < interval.low < interval.estimate < interval.high
