"""Training units: rows, keys and costs; what is trained once is shared; a run folder that goes on."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from dynaprop.heads.evaluation.metric import mean_average_precision, multi_hot
from dynaprop.heads.evaluation.summary import dynamic_minus, paired_difference, setting_label, summarise, whole_seeds
from dynaprop.heads.experiments.measure import BranchCost, measure, shuffled_teacher
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.model.setting import MODELS, expand
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.rows import KEY, METRICS, Asked
from dynaprop.heads.training.trained_models import Options, TrainedModels, Training, trainings
from dynaprop.pipeline.annotations.splits import inner_holdout
from dynaprop.pipeline.errors import DynapropError, UsageError

CLASSES = 3
SETTINGS = expand(MODELS, [(8, 2)])


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
        starts=np.cumsum(counts) - counts,
        n_clips=counts,
        student=torch.from_numpy(rng.normal(0, 1, (counts.sum(), 10))).half(),
        teacher=torch.from_numpy(teacher).half(),
        timestamps=np.concatenate([np.arange(n, dtype=float) for n in counts]),
    )


@pytest.fixture(scope="module")
def tables():
    frames = []
    training_videos = features(30, 1)
    trained = TrainedModels(
        training_videos,
        groups=[None] * 30,
        seed=0,
        options=Options(epochs=15, lr=1e-2, key_dim=8),
        on_frames=frames.append,
    )
    announced = trained.frames(SETTINGS)
    kept = inner_holdout([labels[0] for labels in training_videos.labels], [None] * 30, seed=0)[0]

    def frames_of(training: Training) -> int:
        counts = training_videos.n_clips[kept] if training.part else training_videos.n_clips
        return sum(min(8 if training.n == 8 else 2, int(n)) for n in counts) * (1 if training.teacher is None else 2)

    key = dict.fromkeys(KEY[:5], "x") | {"fold": None, "experiment": None, "options_digest": "o", "feature_key": "f"}
    tables = measure(
        trained,
        features(24, 2),
        settings=SETTINGS,
        key=key,
        student_cost=BranchCost(gmacs=0.1, gflops_paper=0.1),
        teacher_cost=BranchCost(gmacs=1.0, gflops_paper=None),
        n_missing=3,
        with_frames=True,
    )
    needed = trainings(SETTINGS)
    assert len(needed) == 7  # two teachers, student, student with KD, two parts, dynamic
    assert sum(frames) == announced == 15 * sum(map(frames_of, needed))  # what models share is trained once
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
            "teacher": torch.repeat_interleave(torch.arange(7), torch.from_numpy(split.n_clips))[:, None].float(),
        }
    )
    shuffled = shuffled_teacher(split, seed=0)
    spans = zip(shuffled.starts, shuffled.starts + shuffled.n_clips, strict=True)
    owners = [set(shuffled.teacher[begin:end, 0].tolist()) for begin, end in spans]
    assert all(len(owner) == 1 and owner != {video} for video, owner in enumerate(owners))
    assert sorted(owner.pop() for owner in owners) == list(range(7))
    assert torch.equal(shuffled.student, split.student)


def test_a_run_folder_joins_its_units_and_trusts_only_finished_ones(tables, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write("test-seed0", tables)
    run.write("another unit, same rows", tables)
    half = run.path / "units" / "killed"
    half.mkdir()
    (half / "results.parquet").write_bytes(b"half")
    run.ask(Asked("everything", "x", (0, 1), SETTINGS))
    run.collect()
    assert {row.setting for row in run.measured()} == set(SETTINGS)
    results = pd.read_parquet(run.path / "results.parquet")
    assert len(results) == len(tables.results)
    assert set(results["run_id"]) == {"run"}
    assert set(results["experiment"]) == {"everything"}
    for name in ("predictions", "per_class", "frame_scores"):
        assert len(pd.read_parquet(run.path / f"{name}.parquet")) == len(getattr(tables, name))


def test_a_row_stands_once_under_each_experiment_that_asked_for_it(tables, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write("unit", tables)
    dynamic = expand(["dynamic"], [(8, 2)])
    everything, alone = Asked("everything", "x", (0,), SETTINGS), Asked("alone", "x", (0,), dynamic)
    for asked in (everything, alone, Asked("another seed", "x", (7,), SETTINGS)):
        run.ask(asked)
    run.collect()
    results = pd.read_parquet(run.path / "results.parquet")
    assert results["experiment"].value_counts().to_dict() == {"everything": len(SETTINGS), "alone": 1}
    assert not results.duplicated(KEY).any()
    assert run.rows_of(alone)["model"].tolist() == ["dynamic"]
    assert len(run.rows_of(everything)) == len(SETTINGS)
    assert len(run.rows_of(everything, "predictions", columns=["predicted"])) == 24 * len(SETTINGS)
    predictions = pd.read_parquet(run.path / "predictions.parquet")
    assert (predictions["experiment"] == "alone").sum() == 24
    assert len(summarise(results)) == len(SETTINGS)  # twice there, counted once


def test_units_without_an_asking_experiment_keep_their_own(tables, tmp_path):
    """Run folders of the first version name the experiment in the unit and hold no `asked`."""
    run = RunFolder(tmp_path / "run")
    run.write("unit", replace(tables, results=tables.results.assign(experiment="sweep")))
    run.collect()
    assert set(pd.read_parquet(run.path / "results.parquet")["experiment"]) == {"sweep"}


def test_results_of_two_runs_concatenate_without_a_change_of_types(tables, tmp_path):
    frames = []
    for name, fold in (("one", None), ("two", 3)):
        run = RunFolder(tmp_path / name)
        run.write("unit", replace(tables, results=tables.results.assign(fold=fold)))
        run.ask(Asked("all", "x", (0,), SETTINGS))
        run.collect()
        frames.append(pd.read_parquet(run.path / "results.parquet"))
    assert frames[0].dtypes.equals(frames[1].dtypes)
    assert pd.concat(frames).dtypes.equals(frames[0].dtypes)


def test_frame_scores_are_of_the_frames_that_each_model_sees(tables):
    frames = tables.frame_scores
    assert set(frames["model"]) == {"student", "teacher", "dynamic"}
    used = tables.results.set_index("model")
    dynamic = frames[frames["model"] == "dynamic"]
    assert (dynamic["branch"] == "student").sum() == pytest.approx(24 * used.loc["dynamic", "n_s_used"])
    assert (dynamic["branch"] == "teacher").sum() == pytest.approx(24 * used.loc["dynamic", "n_t_used"])
    assert set(frames[frames["model"] == "student"]["branch"]) == {"student"}
    best = [names[0] for names in dynamic["top5"]]
    right = np.mean([name == true for name, true in zip(best, dynamic["true_class"], strict=True)])
    assert right > 0.7  # the teacher sees the class, and it reaches the student's frames
    for row in dynamic.itertuples():
        assert (np.diff(row.top5_probabilities) <= 0).all()
        assert len(row.top5) == CLASSES
        assert row.true_probability == row.top5_probabilities[list(row.top5).index(row.true_class)]
    times = dynamic[(dynamic["video_id"] == "2/0") & (dynamic["branch"] == "student")]["timestamp"]
    assert times.is_monotonic_increasing


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


def test_paired_difference_of_map_is_that_of_the_table(tables):
    """With folds, too: joined by their number of videos."""
    rows = tables.predictions
    folded = rows.assign(fold=(rows["video_id"].str[2:].astype(int) % 2).astype("Int64"))
    for predictions in (rows, folded):
        expected = []
        for model in ("dynamic", "student"):
            parts = [part for _, part in predictions[predictions["model"] == model].groupby("fold", dropna=False)]
            values = [
                mean_average_precision(np.stack(part["scores"].tolist()), multi_hot(part["labels"].tolist(), CLASSES))
                for part in parts
            ]
            expected.append(np.average(values, weights=[len(part) for part in parts]))
        interval = paired_difference(
            predictions, {"model": "dynamic"}, {"model": "student"}, metric="map", resamples=50
        )
        assert interval.estimate == pytest.approx(expected[0] - expected[1])
        assert interval.low < interval.estimate < interval.high


def test_labels_of_the_ablations_name_what_differs():
    lines = expand(["dynamic"], [(20, 5)], fusion=["none", "teacher", "both"], losses=["vid", "vid+frm+cos"])
    assert [setting_label(vars(line)) for line in lines] == [
        "Dynamic-STE, without fusion, losses vid",
        "Dynamic-STE, without fusion",
        "Dynamic-STE, fusion of the teacher only, losses vid",
        "Dynamic-STE, fusion of the teacher only",
        "Dynamic-STE, losses vid",
        "Dynamic-STE",
    ]
    (student,) = expand(["student"], [(20, 0)])
    assert setting_label(vars(student)) == "Student"


def test_every_line_is_compared_with_dynamic_ste_at_its_own_numbers_of_frames(tables):
    summary = summarise(tables.results)
    gaps = dict(
        zip(summary[["model", "n_t"]].itertuples(index=False), dynamic_minus(summary, tables.predictions), strict=True)
    )
    top1 = tables.results.set_index(["model", "n_t"])["top1"]
    assert gaps.pop(("dynamic", 2)) is None
    for line, gap in gaps.items():
        assert gap.estimate == pytest.approx(top1["dynamic", 2] - top1[line])
    other = summary.assign(n_s=summary["n_s"].where(summary["model"] != "student", 9))
    lines = dict(zip(other["model"], dynamic_minus(other, tables.predictions), strict=True))
    assert lines["student"] is None and lines["static-avg"] is not None


def test_asking_again_adds_seeds_or_replaces_settings(tables, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write("unit", tables)
    dynamic, student = expand(["dynamic"], [(8, 2)]), expand(["student"], [(8, 0)])
    for asked in (Asked("a", "x", (0,), dynamic), Asked("a", "x", (1,), dynamic), Asked("b", "x", (0,), dynamic)):
        run.ask(asked)
    run.ask(Asked("b", "x", (0,), student))
    run.collect()
    results = pd.read_parquet(run.path / "results.parquet")
    assert dict(zip(results["experiment"], results["model"], strict=True)) == {"a": "dynamic", "b": "student"}
    run.ask(Asked("b", "x", (3,), dynamic), adding=True)
    run.collect()
    results = pd.read_parquet(run.path / "results.parquet")
    assert set(zip(results["experiment"], results["model"], strict=True)) == {
        ("a", "dynamic"),
        ("b", "student"),
        ("b", "dynamic"),
    }


def test_of_two_units_with_a_row_the_newer_one_counts(tables, tmp_path):
    run = RunFolder(tmp_path / "run")
    for top1 in (0.25, 0.5):
        run.write("unit", replace(tables, results=tables.results.assign(top1=top1)))
    run.ask(Asked("a", "x", (0,), SETTINGS))
    run.collect()
    assert set(pd.read_parquet(run.path / "results.parquet")["top1"]) == {0.5}


def test_who_reads_what_is_current_writes_nothing(tables, tmp_path):
    """A run of somebody else's may be on a disk that cannot be written to."""
    run = RunFolder(tmp_path / "run")
    run.write("unit", tables)
    run.ask(Asked("a", "x", (0,), SETTINGS))
    run.collect()
    guard = run.path / ".update.guard"
    guard.unlink()
    notes: list[str] = []
    RunFolder(run.path, on_note=notes.append).refresh()
    assert not guard.exists() and notes == []
    run.write("other", replace(tables, results=tables.results.assign(seed=1)))
    RunFolder(run.path, on_note=notes.append).refresh()
    assert guard.exists() and notes == []


def test_tables_that_were_passed_on_without_their_units_stay(tables, tmp_path):
    """Also where a command measures nothing, as its first training fails."""
    run = RunFolder(tmp_path / "run")
    run.write("unit", tables)
    run.ask(Asked("a", "x", (0,), SETTINGS))
    run.collect()
    shutil.rmtree(run.path / "units")
    run.ask(Asked("b", "x", (0,), SETTINGS))
    run.collect()
    assert len(pd.read_parquet(run.path / "results.parquet")) == len(SETTINGS)


def test_a_damaged_question_is_said_once(tmp_path):
    notes: list[str] = []
    run = RunFolder(tmp_path / "run", on_note=notes.append)
    run.ask(Asked("a", "x", (0,), SETTINGS))
    (run.path / "asked" / "a-x.json").write_text("{", encoding="utf-8")
    run.ask(Asked("a", "x", (1,), SETTINGS))
    (note,) = notes
    assert note.endswith("a-x.json is damaged: what was asked for by it before is forgotten")
    assert [one.seeds for one in run.asked()] == [(1,)]


def test_units_whose_columns_stand_in_another_order_are_joined(tables, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write("unit", tables)
    rows = tables.predictions.assign(seed=1)
    run.write("other", replace(tables, predictions=rows[sorted(rows)], results=tables.results.assign(seed=1)))
    run.ask(Asked("a", "x", (0, 1), SETTINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynaprop.heads.runs.collected._ROWS_AT_ONCE", 100)  # several row groups, written one by one
        run.collect()
    joined = pd.read_parquet(run.path / "predictions.parquet")
    assert len(joined) == 2 * len(rows)
    assert joined.columns.tolist()[: len(KEY)] == KEY


def test_seeds_that_lack_a_fold_are_left_out(tables):
    row = tables.results[tables.results["model"] == "dynamic"].assign(split="2-fold")
    rows = pd.concat([row.assign(seed=seed, fold=fold) for seed, fold in ((0, 0), (0, 1), (1, 0))])
    assert whole_seeds(rows)[["seed", "fold"]].values.tolist() == [[0, 0], [0, 1]]
    assert len(whole_seeds(row.assign(split="test"))) == 1


def test_subsets_share_the_features():
    split = features(9, 3)
    part = split.select(np.array([4, 1]))
    assert part.student.data_ptr() == split.student.data_ptr()
    assert part.rows.tolist() == [
        *range(split.starts[4], split.starts[4] + split.n_clips[4]),
        *range(split.starts[1], split.starts[1] + split.n_clips[1]),
    ]


def test_levels_of_folds_of_which_one_is_unknown_are_unknown(tables):
    row = tables.results[tables.results["model"] == "dynamic"].assign(split="2-fold")
    folds = [row.assign(fold=fold, largest_class=level) for fold, level in ((0, 0.6), (1, 0.4))]
    assert summarise(pd.concat(folds))["largest_class"].item() == pytest.approx(0.5)
    folds[1] = folds[1].assign(largest_class=np.nan)
    assert np.isnan(summarise(pd.concat(folds))["largest_class"].item())


def test_a_handful_of_videos_has_no_interval(tables):
    few = tables.predictions[tables.predictions["video_id"].isin([f"2/{video}" for video in range(9)])]
    gap = paired_difference(few, {"model": "dynamic"}, {"model": "student"})
    assert np.isfinite(gap.estimate) and np.isnan(gap.low) and np.isnan(gap.high)


def test_only_seeds_that_both_models_have_are_compared(tables):
    rows = tables.predictions
    wrong = rows[rows["model"] == "student"].assign(seed=1, predicted=-1)
    gap = paired_difference(pd.concat([rows, wrong]), {"model": "dynamic"}, {"model": "student"}, resamples=50)
    alone = paired_difference(rows, {"model": "dynamic"}, {"model": "student"}, resamples=50)
    assert gap == alone


def test_results_of_different_trainings_are_not_averaged(tables):
    other = tables.results.assign(options_digest="another")
    with pytest.raises(DynapropError, match="several values of options_digest"):
        summarise(pd.concat([tables.results, other]))


def test_damaged_results_are_left_out_and_said(tables, tmp_path):
    notes = []
    run = RunFolder(tmp_path / "run", on_note=notes.append)
    run.write("unit", tables)
    run.ask(Asked("table3", "x", (0,), SETTINGS))
    (file,) = run.path.glob("units/unit.*/results.parquet")
    file.write_bytes(b"noise")
    assert run.measured() == set()
    (note,) = notes
    assert f"{file} is damaged" in note or str(file) in note
    assert "sweeping again measures them (asked for so far: table3)" in note
    run.write("unit", tables)  # measured again
    (run.path / "asked" / "table3-x.json").write_text("")
    with pytest.raises(DynapropError, match=r"table3-x.json is damaged; delete it"):
        run.collect()


@pytest.mark.parametrize("n", [20, 100_000])
def test_frames_that_videos_do_not_have_are_not_announced(n):
    """5 to 14 clips a video, whatever is asked for."""
    announced, took = [], []
    videos = features(30, 1)
    options = Options(epochs=2, lr=1e-2, key_dim=8)
    trained = TrainedModels(videos, groups=[None] * 30, seed=0, options=options, on_frames=took.append)
    settings = expand(["teacher"], [(0, n)])
    announced = trained.frames(settings)
    trained.model(settings[0])
    assert announced == sum(took) == 2 * sum(videos.n_clips)


def test_what_cannot_be_held_out_is_not_announced():
    """One video a class: no weights are fitted, and no models for them."""
    took = []
    options = Options(epochs=2, lr=1e-2, key_dim=8)
    trained = TrainedModels(features(3, 1), groups=[None] * 3, seed=0, options=options, on_frames=took.append)
    settings = expand(["static-weighted"], [(4, 2)])
    announced = trained.frames(settings)
    trained.model(settings[0])
    assert announced == sum(took) == 2 * 3 * (4 + 2 * 4)


def test_frames_beyond_what_makes_sense_are_refused():
    with pytest.raises(UsageError, match="n_s is 999999999999: a branch sees 100,000 frames of a video at most"):
        expand(["dynamic"], [(999999999999, 5)])
