"""Metrics against scikit-learn, against AR-Net's formula by hand, and intervals against SciPy."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from dynaprop.heads.evaluation.metric import (
    ResampledMap,
    average_precision,
    mean_average_precision,
    mean_interval,
    multi_hot,
    per_class,
    top1,
)
from dynaprop.pipeline.errors import DynapropError


def test_average_precision_is_scikit_learns_where_every_class_has_a_positive_and_no_scores_tie():
    rng = np.random.default_rng(0)
    targets = rng.random((60, 7)) < 0.2
    targets[np.arange(7), np.arange(7)] = True  # every class has a positive; many videos have several labels
    scores = rng.random((60, 7))
    expected = [average_precision_score(targets[:, c], scores[:, c]) for c in range(7)]
    np.testing.assert_allclose(average_precision(scores, targets), expected, rtol=1e-12)
    assert mean_average_precision(scores, targets) == pytest.approx(np.mean(expected), rel=1e-12)


def test_average_precision_by_hand():
    # Ranked: positive, negative, positive, negative: (1/1 + 2/3) / 2.
    assert average_precision(np.array([[0.9], [0.8], [0.7], [0.1]]), np.array([[1], [0], [1], [0]], bool))[
        0
    ] == pytest.approx(5 / 6)


def test_equal_scores_are_ranked_in_the_order_of_the_videos():
    # cal_map ranks ties one by one (scikit-learn puts them on one threshold and says 1/2 both times).
    tied = np.full((2, 1), 0.5)
    assert average_precision(tied, np.array([[True], [False]])) == [1.0]
    assert average_precision(tied, np.array([[False], [True]])) == [0.5]


def test_many_equal_scores_are_ranked_in_the_order_of_the_videos():
    rng = np.random.default_rng(0)
    scores, targets = rng.integers(3, size=(500, 1)) / 2, rng.random((500, 1)) < 0.3
    ranked = sorted(range(500), key=lambda video: -scores[video, 0])  # Python's sort is stable
    precisions = []
    for rank, video in enumerate(ranked, start=1):
        if targets[video, 0]:
            precisions.append((len(precisions) + 1) / rank)
    assert average_precision(scores, targets)[0] == pytest.approx(np.mean(precisions), rel=1e-12)


def test_float32_scores_that_differ_do_not_tie():
    scores = np.array([[1.0], [1.0 - 2**-24], [1.0 - 2**-23]], np.float32)
    assert average_precision(scores, np.array([[False], [True], [True]])) == pytest.approx([(1 / 2 + 2 / 3) / 2])


def test_a_class_without_positives_counts_zero_and_keeps_its_column():
    targets = multi_hot([[0], [2], [0]], 4)
    assert targets.shape == (3, 4)
    scores = np.eye(4)[[0, 2, 0]]
    assert average_precision(scores, targets).tolist() == [1.0, 0.0, 1.0, 0.0]
    assert mean_average_precision(scores, targets) == 0.5


def test_top1_is_right_with_any_of_the_labels():
    targets = multi_hot([[0, 2], [1], [1, 0]], 3)
    scores = np.array([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1], [0.5, 0.4, 0.1]])
    assert top1(scores, targets) == pytest.approx(2 / 3)
    assert top1(scores, multi_hot([[0], [1], [1]], 3)) == 0.0  # by first label only


@pytest.mark.parametrize("labels", [[[0], []], [[0], [3]], [[0], [-1]]])
def test_labels_that_cannot_be_scored_are_refused(labels):
    with pytest.raises(DynapropError, match="video 1 has labels"):
        multi_hot(labels, 3)


def test_per_class_table():
    targets = multi_hot([[0], [0], [1]], 3)
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.9, 0.0]])
    table = per_class(scores, targets, ["a", "b", "c"]).set_index("class_name")
    assert table["n_videos"].tolist() == [2, 1, 0]
    assert table["average_precision"].tolist() == average_precision(scores, targets).tolist()
    assert table["recall"].tolist()[:2] == [0.5, 1.0] and np.isnan(table.loc["c", "recall"])


def test_mean_interval_is_scipys_t_interval():
    values = [0.61, 0.64, 0.58, 0.66, 0.60]
    low, high = stats.t.interval(0.95, df=4, loc=np.mean(values), scale=stats.sem(values))
    interval = mean_interval(values)
    np.testing.assert_allclose([interval.estimate, interval.low, interval.high], [np.mean(values), low, high])


def test_one_seed_has_a_mean_but_no_interval():
    interval = mean_interval([0.7])
    assert interval.estimate == 0.7 and np.isnan(interval.low) and np.isnan(interval.high)
    with pytest.raises(DynapropError):
        mean_interval([])


def test_a_resample_is_scored_as_scikit_learn_does_with_sample_weights():
    rng = np.random.default_rng(3)
    targets = rng.random((40, 5)) < 0.3
    targets[np.arange(5), np.arange(5)] = True
    scores = rng.random((40, 5))
    counts = rng.integers(0, 4, size=40).astype(float)
    counts[:5] = 1  # every class keeps a positive
    expected = np.mean([average_precision_score(targets[:, c], scores[:, c], sample_weight=counts) for c in range(5)])
    metric = ResampledMap(scores, targets)
    both = metric(np.stack([counts, np.ones(40)]))
    assert both.tolist() == pytest.approx([expected, mean_average_precision(scores, targets)])
