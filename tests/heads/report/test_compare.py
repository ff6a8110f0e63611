"""Comparisons of the report against hand-made numbers."""

import math
from datetime import datetime

import pandas as pd
import pytest

from dynaprop.heads.evaluation.metric import Interval, mean_interval
from dynaprop.heads.model.setting import Setting
from dynaprop.heads.report.backbones import compare_backbones
from dynaprop.heads.report.compare import Comparison, EqualCost, compare, equal_cost, in_short
from dynaprop.heads.report.page import make_report
from dynaprop.heads.report.rows import Runs
from tests.heads.run_folder import ensembles, single, ste, write_run


def rows(setting: Setting, values: dict[tuple[int, int], float], gmacs: float, videos: int = 10) -> pd.DataFrame:
    """Result rows from {(seed, fold): top-1}."""
    table = pd.DataFrame(
        [
            vars(setting)
            | {"seed": seed, "fold": fold, "top1": top1, "map": 0.5, "gmacs_measured": gmacs, "n_videos": videos + fold}
            | {"recipe": "lite"}
            for (seed, fold), top1 in values.items()
        ]
    )
    return table.astype({"fusion_s": "boolean", "fusion_t": "boolean"})


def seeds(*values: float) -> dict[tuple[int, int], float]:
    return {(seed, 0): value for seed, value in enumerate(values)}


DYNAMIC = ste("dynamic", 20, 5)


def test_between_two_points_the_baseline_is_interpolated_seed_by_seed():
    dynamic = rows(DYNAMIC, seeds(0.80, 0.90), gmacs=3.0)
    curve = [
        rows(single("student", 20), seeds(0.50, 0.60), gmacs=2.0),
        rows(single("student", 40), seeds(0.70, 0.64), gmacs=6.0),
        rows(single("student", 60), seeds(0.99, 0.99), gmacs=9.0),  # beyond the next one: without a say
    ]
    found = equal_cost(dynamic, pd.concat(curve), metric="top1")
    # At 3 of 2..6, a quarter of the way: 0.55 and 0.61. 0.80 - 0.55 = 0.25 and 0.90 - 0.61 = 0.29.
    assert not found.nearest
    assert found.points == ((20, 2.0, 0.75), (40, 6.0, 0.25))
    difference = found.over_seeds
    assert difference.estimate == pytest.approx(0.27)
    half = 12.7062 * 0.02  # Student's t for one degree of freedom, times the standard error of 0.25 and 0.29
    assert difference.high - difference.estimate == pytest.approx(half, rel=1e-4)


def test_a_point_of_the_very_cost_needs_no_other():
    dynamic = rows(DYNAMIC, seeds(0.8, 0.7), gmacs=2.0)
    curve = [rows(single("teacher", n), seeds(n / 100, n / 100), gmacs=n / 10) for n in (10, 20, 30)]
    found = equal_cost(dynamic, pd.concat(curve), metric="top1")
    assert (found.nearest, found.points) == (False, ((20, 2.0, 1.0),))
    assert found.over_seeds.estimate == pytest.approx(0.75 - 0.2)


@pytest.mark.parametrize(("gmacs", "frames"), [(9.0, 80), (0.5, 20)])
def test_outside_the_curve_the_nearest_point_stands_and_is_named(gmacs, frames):
    dynamic = rows(DYNAMIC, seeds(0.8), gmacs=gmacs)
    curve = [rows(single("student", n), seeds(n / 200), gmacs=n / 10) for n in (20, 40, 80)]
    found = equal_cost(dynamic, pd.concat(curve), metric="top1")
    assert (found.nearest, found.points) == (True, ((frames, frames / 10, 1.0),))
    assert found.over_seeds.estimate == pytest.approx(0.8 - frames / 200)
    assert math.isnan(found.over_seeds.low)  # one seed


def test_folds_are_weighted_by_their_videos_and_only_common_seeds_count():
    dynamic = rows(DYNAMIC, {(0, 0): 0.5, (0, 10): 0.8, (1, 0): 1.0, (1, 10): 1.0}, gmacs=2.0)
    student = rows(single("student", 20), {(0, 0): 0.2, (0, 10): 0.2}, gmacs=2.0)
    found = equal_cost(dynamic, student, metric="top1")
    assert found.over_seeds.estimate == pytest.approx((10 * 0.5 + 20 * 0.8) / 30 - 0.2)  # of seed 0: 10 and 20 videos
    assert equal_cost(dynamic[dynamic["seed"] == 1], student, metric="top1") is None


def predictions(setting: Setting, right: int, videos: int = 40) -> pd.DataFrame:
    table = pd.DataFrame({"video_id": [str(i) for i in range(videos)], "labels": [[0]] * videos})
    table["predicted"] = [0 if i < right else 1 for i in range(videos)]
    return table.assign(**vars(setting), recipe="lite", seed=0, fold=0)


def test_ensembles_are_compared_on_the_same_frames_and_singles_at_equal_cost():
    static = ste("static-avg", 20, 5, losses="vid+frm")
    other = ste("static-avg", 28, 7, losses="vid+frm")  # not the same frames
    ablation = ste("dynamic", 20, 5, fusion_s=False)
    shuffled = ste("dynamic-shuffled", 20, 5)
    results = [
        rows(DYNAMIC, seeds(0.9, 0.8), gmacs=5.0),
        rows(static, seeds(0.5, 0.5), gmacs=5.0),
        rows(other, seeds(0.5, 0.5), gmacs=7.0),
        rows(ablation, seeds(0.7, 0.7), gmacs=5.0),
        rows(shuffled, seeds(0.1, 0.1), gmacs=5.0),
        rows(single("teacher", 5), seeds(0.5, 0.6), gmacs=3.0),
        rows(single("teacher", 10), seeds(0.7, 0.6), gmacs=7.0),
    ]
    right = {DYNAMIC: 36, static: 20, shuffled: 36, single("teacher", 5): 20, single("teacher", 10): 28}
    table = pd.concat([predictions(setting, count) for setting, count in right.items()])
    found = compare(pd.concat(results), table, metric="top1")
    assert [(one.baseline, bool(one.equal_cost), one.verdict) for one in found] == [
        ("static-avg", False, "above"),
        ("dynamic-shuffled", False, "not shown"),
        ("teacher", True, "not shown"),
    ]
    assert found[0].over_videos.estimate == pytest.approx(0.4)
    # 0.9 - 0.6 and 0.8 - 0.6: half-way between 5 and 10 frames.
    assert vars(found[2].equal_cost.over_seeds) == pytest.approx(vars(mean_interval([0.3, 0.2])))
    # 36 of 40 minus half of 20 of 40 and half of 28 of 40; over videos above, over seeds not.
    assert found[2].over_videos.estimate == pytest.approx(0.9 - 0.5 * (0.5 + 0.7))
    assert found[2].over_videos.low > 0 > found[2].equal_cost.over_seeds.low
    assert in_short(found) == (
        "Of 2 comparisons with a baseline, Dynamic-STE is above in 1 (Static-STE Avg) and below in none. "
        "Not shown either way: 1 (Teacher)."
    )


def comparison(
    points: tuple[tuple[int, float, float], ...],
    over_videos: tuple[float, float, float],
    over_seeds: tuple[float, float] = (math.nan, math.nan),
) -> Comparison:
    """Against Static-STE Avg, or against Student at such points; intervals as (low, estimate, high) and (low, high)."""
    low, estimate, high = over_videos
    at_cost = EqualCost(Interval(estimate, *over_seeds), points, nearest=len(points) == 1) if points else None
    gap = Interval(estimate, low, high)
    return Comparison("lite", 20, 5, 4.05, "student" if points else "static-avg", gap, at_cost)


AT = "At 20 + 5 frames Dynamic-STE is "
OVER = "95\u00a0% interval over"


NEAR = "with 16 frames, its measured point nearest in cost and cheaper (1.73 GMACs against 4.05)"


@pytest.mark.parametrize(
    ("one", "verdict", "sentence"),
    [
        (
            comparison((), (0.004, 0.031, 0.058)),
            "above",
            f"{AT}3.1 points above Static-STE Avg, {OVER} videos [0.4, 5.8].",
        ),
        (
            comparison((), (-0.04, 0.0004, 0.04)),
            "not shown",
            f"{AT}level with Static-STE Avg, {OVER} videos [-4.0, 4.0]: not shown, the interval contains 0.",
        ),
        (
            comparison(((40, 3.0, 0.5), (60, 5.0, 0.5)), (-0.05, -0.03, -0.01), (-0.04, -0.02)),
            "below",
            f"{AT}3.0 points below Student at equal cost (4.05 GMACs, between its 40 and 60 frames), "
            f"{OVER} videos [-5.0, -1.0] and over seeds [-4.0, -2.0].",
        ),
        (
            comparison(((16, 1.73, 1.0),), (-0.0001, 0.02, 0.05), (0.01, 0.03)),
            "not shown",
            f"{AT}2.0 points above Student {NEAR}, {OVER} videos [-0.01, 5.0] and over seeds [1.0, 3.0]: not shown, an "
            "interval contains 0.",
        ),
        (
            comparison(((16, 1.73, 1.0),), (0.01, 0.02, 0.05), (-0.03, -0.01)),
            "not shown",
            f"{AT}2.0 points above Student {NEAR}, {OVER} videos [1.0, 5.0] and over seeds [-3.0, -1.0]: not shown, "
            "the intervals disagree.",
        ),
        (
            comparison(((80, 8.0, 1.0),), (0.01, 0.02, 0.03)),  # one seed: only the videos speak
            "above",
            f"{AT}2.0 points above Student with 80 frames, its measured point nearest in cost and dearer (8.00 GMACs "
            f"against 4.05), {OVER} videos [1.0, 3.0].",
        ),
    ],
)
def test_sentences(one, verdict, sentence):
    assert one.verdict == verdict
    assert one.sentence == sentence


def test_fine_tuned_backbones_are_compared_with_the_frozen_ones_that_they_began_as(tmp_path):
    models = {"train": [single("teacher", 16), *ensembles(16, 4)]}
    frozen = write_run(tmp_path / "frozen", experiments=models, recipe="lite", seeds=3)
    tuned = write_run(tmp_path / "tuned", experiments={"finetune": models["train"]}, recipe="lite-finetuned", seeds=2)
    by_cache = write_run(tmp_path / "by-cache", experiments=models, recipe="lite-finetuned0-1a2b3c4d", seeds=2)
    wrong = pd.read_parquet(frozen / "predictions.parquet")
    chosen = wrong["model"] == "dynamic"
    wrong.loc[chosen, "predicted"] = (
        wrong.loc[chosen, "predicted"] + wrong.loc[chosen, "seed"] % 2
    ) % 6  # half of them
    wrong.to_parquet(frozen / "predictions.parquet")
    results = pd.read_parquet(frozen / "results.parquet")
    results.loc[results["model"] == "dynamic", "top1"] -= results["seed"] % 2
    results.to_parquet(frozen / "results.parquet")
    runs = Runs([frozen, tuned])
    (part,) = runs.parts()
    found = compare_backbones(runs.rows(part), lambda name: runs.predictions(part, name, scores=False), metric="top1")
    assert [one.model for one in found] == ["dynamic", "static-avg", "static-weighted", "teacher"]
    dynamic, average = found[0], found[1]
    assert (dynamic.recipe, dynamic.frozen, dynamic.seeds) == ("lite-finetuned", "lite", 2)
    assert dynamic.over_videos.estimate == pytest.approx(dynamic.over_seeds.estimate, abs=0.05)
    assert dynamic.over_videos.low > 0.2 and dynamic.over_seeds.low < 0 and dynamic.verdict == "not shown"
    assert dynamic.sentence.startswith("Dynamic-STE at 16 + 4 frames is ")
    assert "points above itself on the frozen backbones of lite, 2 seeds, 95\u00a0% interval over" in dynamic.sentence
    assert dynamic.sentence.endswith(": not shown.")
    assert average.over_videos.estimate == 0 and "is level with itself" in average.sentence
    # Heads that were trained on cached features of fine-tuned backbones, and two runs of one name.
    others = pd.read_parquet(by_cache / "results.parquet").assign(options_digest="other")
    others.to_parquet(by_cache / "results.parquet")
    again = write_run(tmp_path / "again", experiments={"finetune": models["train"]}, recipe="lite-finetuned", seeds=2)
    several = Runs([frozen, tuned, again, by_cache])
    more = compare_backbones(
        several.rows(part), lambda name: several.predictions(part, name, scores=False), metric="top1"
    )
    told = {one.recipe: one for one in more if one.model == "dynamic"}
    assert list(told) == ["lite-finetuned (again)", "lite-finetuned (tuned)", "lite-finetuned0-1a2b3c4d"]
    assert [one.other_options for one in told.values()] == [False, False, True]
    assert "of lite, whose heads have other hyper-parameters, 2 seeds" in told["lite-finetuned0-1a2b3c4d"].sentence
    page = make_report(
        [frozen, tuned], metrics={}, pictures=lambda _dataset, _videos: {}, command="", written=datetime(2026, 1, 1)
    )
    assert "Fine-tuned backbones" in page.html and dynamic.sentence in page.html
    (table,) = (table for name, table in page.tables.items() if name.startswith("fine-tuned-"))
    assert table["sentence"].tolist() == [one.sentence for one in found]
