"""Chance and the constant answer: by simulation and by counting, over folds, for several labels, for runs of before."""

import numpy as np
import pandas as pd
import pytest

from dynaprop.heads.evaluation.chance import LEVELS, levels
from dynaprop.heads.evaluation.constant_answer import against_largest, not_above_in_words
from dynaprop.heads.evaluation.metric import mean_average_precision, multi_hot, top1
from dynaprop.heads.evaluation.summary import FEWEST_VIDEOS, summarise
from dynaprop.heads.report.rows import Runs
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.rows import KEY, Asked, UnitTables
from tests.heads.run_folder import single, ste, write_run


def of(labels: list[tuple[int, ...]], n_classes: int) -> dict[str, float]:
    return levels(multi_hot(labels, n_classes).sum(axis=0), len(labels))


@pytest.mark.parametrize(
    ("labels", "n_classes"),
    [
        ([(0,)] * 5 + [(1,)] * 3 + [(2,)], 3),
        ([(0,)] * 5 + [(1,)] * 3, 4),  # two classes that no test video shows
        ([(0, 1), (1,), (1, 2), (2,), (0, 1, 2)], 3),
        ([(0,)], 2),
    ],
)
def test_levels_are_what_guessing_and_a_constant_answer_get(labels, n_classes):
    found = of(labels, n_classes)
    targets = multi_hot(labels, n_classes)
    rng = np.random.default_rng(0)
    guesses = [rng.random(targets.shape) for _ in range(4000)]
    assert found["chance_map"] == pytest.approx(
        np.mean([mean_average_precision(g, targets) for g in guesses]), abs=0.01
    )
    assert found["chance"] == 1 / n_classes
    constant = [top1(np.tile(np.eye(n_classes)[c], (len(labels), 1)), targets) for c in range(n_classes)]
    assert found["largest_class"] == max(constant) >= found["chance"]


def rows(split, fold, seed, labels, predicted, model="student"):
    """Results, predictions and counts by class of one training, from what it answered."""
    n_classes = 3
    setting = single(model, 8) if model != "dynamic" else ste(model, 8, 2)
    key = dict.fromkeys(KEY, "x") | {"split": split, "fold": fold, "seed": seed, **vars(setting), "experiment": "e"}
    targets = multi_hot(labels, n_classes)
    right = [answer in true for answer, true in zip(predicted, labels, strict=True)]
    costs = dict.fromkeys(("gflops_paper", "gmacs_measured", "n_s_used", "n_t_used"), 1.0)
    results = {"top1": np.mean(right), "map": 0.5, **costs, "n_videos": len(labels), "n_missing": 0}
    results |= levels(targets.sum(axis=0), len(labels))
    ids = [f"{fold}-{number}" for number in range(len(labels))]
    predictions = pd.DataFrame({"video_id": ids, "labels": list(map(list, labels)), "predicted": predicted})
    return pd.DataFrame([key | results]), predictions.assign(**key)


def test_folds_are_joined_by_their_videos():
    """The answer is each fold's own: 6 of 8 and 3 of 4, not the class that is largest over all."""
    folds = {0: [(0,)] * 6 + [(1,)] * 2, 1: [(2,)] * 3 + [(0,)]}
    parts = [
        rows("2-fold", fold, seed, labels, [c for c, *_ in labels]) for fold, labels in folds.items() for seed in (0, 1)
    ]
    results, predictions = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    (line,) = summarise(results).to_dict("records")
    assert line["largest_class"] == (6 + 3) / 12 and line["chance"] == 1 / 3
    (one,) = against_largest(summarise(results), predictions)
    assert one.largest_class == pytest.approx(9 / 12)
    assert one.over_videos.estimate == pytest.approx(1 - 9 / 12)


class TestVerdict:
    @pytest.mark.parametrize(
        ("right", "verdict"),
        [(40, "above"), (21, "not shown"), (20, "not shown"), (2, "below")],
    )
    def test_by_the_interval(self, right, verdict):
        """20 of 40 videos are of class 0; the model is right in the last ones of a mixed order."""
        labels = [(0,), (1,)] * 20
        predicted = [label if number < right else 2 for number, (label,) in enumerate(labels)]
        results, predictions = rows("test", None, 0, labels, predicted)
        (one,) = against_largest(summarise(results), predictions)
        assert one.over_videos.estimate == pytest.approx(right / 40 - 0.5)
        assert one.verdict == verdict
        assert bool(not_above_in_words([one])) == (verdict != "above")
        assert ("not shown" in one.sentence) == (verdict == "not shown")

    def test_interval_is_that_of_the_paired_difference(self):
        """Against an own bootstrap of right minus right-by-answering-0."""
        rng = np.random.default_rng(3)
        labels = [(int(c),) for c in rng.integers(0, 2, 60)]
        predicted = [label if rng.random() < 0.7 else 2 for (label,) in labels]
        largest = np.bincount([c for (c,) in labels]).argmax()
        right = np.array([p == c for p, (c,) in zip(predicted, labels, strict=True)], dtype=float)
        difference = right - np.array([c == largest for (c,) in labels])
        means = difference[rng.integers(0, 60, (20_000, 60))].mean(axis=1)
        results, predictions = rows("test", None, 0, labels, predicted)
        (one,) = against_largest(summarise(results), predictions)
        low, high = np.quantile(means, [0.025, 0.975])
        assert (one.over_videos.low, one.over_videos.high) == pytest.approx((low, high), abs=0.02)

    def test_seeds_that_scatter_show_nothing(self):
        labels = [(0,), (1,)] * 20
        parts = []
        for seed, right in enumerate((40, 24, 26)):
            predicted = [label if number < right else 2 for number, (label,) in enumerate(labels)]
            parts.append(rows("test", None, seed, labels, predicted))
        results, predictions = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
        (one,) = against_largest(summarise(results), predictions)
        assert one.over_videos.low > 0 > one.over_seeds.low
        assert one.verdict == "not shown"

    def test_a_handful_of_videos_shows_nothing(self):
        labels = [(0,), (1,), (2,)] * 3
        assert len(labels) < FEWEST_VIDEOS
        results, predictions = rows("test", None, 0, labels, [c for (c,) in labels])
        (one,) = against_largest(summarise(results), predictions)
        assert one.verdict == "not shown" and "10 videos are the fewest" in one.sentence

    def test_several_labels_are_right_with_any(self):
        labels = [(0, 1), (1, 2), (1,), (2,)] * 5
        results, predictions = rows("test", None, 0, labels, [1] * 20)
        (one,) = against_largest(summarise(results), predictions)
        assert one.largest_class == 0.75 and one.over_videos.estimate == 0


class TestRunsOfBefore:
    """Results without the columns; `write_run` makes such ones."""

    def test_report_computes_them(self, tmp_path):
        folder = write_run(tmp_path / "r", experiments={"table3": [single("student", 20), ste("dynamic", 20, 5)]})
        before = pd.read_parquet(folder / "results.parquet")
        assert not set(LEVELS) & set(before.columns)
        predictions = pd.read_parquet(folder / "predictions.parquet")
        read = Runs([folder]).results
        for row in read.to_dict("records"):
            of_row = predictions[(predictions["model"] == row["model"]) & (predictions["seed"] == row["seed"])]
            assert {name: row[name] for name in LEVELS} == pytest.approx(of([*map(tuple, of_row["labels"])], 6))

    @pytest.mark.parametrize("fold", [None, 1])
    @pytest.mark.parametrize("first", [0, 1])
    def test_collecting_them_with_new_ones_gives_all_the_same(self, tmp_path, fold, first):
        """A sweep of today goes on in the folder of an older version, whichever unit is read first."""
        run = RunFolder(tmp_path / "run")
        labels = [(0,), (1,), (1,), (2,)]
        for seed in (0, 1):
            results, predictions = rows("x", fold, seed, labels, [0, 1, 1, 2])
            results = results.assign(experiment=None, weight_s=None, seconds=1.0, gflops_paper=None)
            counts = pd.DataFrame({"class_name": list("abc"), "n_videos": [1, 2, 1]})
            per_class = counts.assign(**results[KEY].iloc[0].to_dict())
            if seed == first:
                results = results.drop(columns=list(LEVELS))
            run.write(f"unit{seed}", UnitTables(results, predictions.assign(experiment=None), per_class))
        asked = Asked("e", "x", (0, 1), (single("student", 8),))
        run.ask(asked)
        run.collect()
        collected = run.rows_of(asked)
        assert len(collected) == 2
        for row in collected.to_dict("records"):
            assert {name: row[name] for name in LEVELS} == pytest.approx(of(labels, 3))
        assert summarise(collected)["largest_class"].tolist() == [0.5]
