"""The command line on real files: the whole way, again, with a change, and with what users get wrong."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from dynaprop.heads.model.setting import MODELS
from dynaprop.heads.runs.checkpoint import load_checkpoint
from dynaprop.heads.runs.rows import KEY, METRICS
from tests.conftest import REPOSITORY
from tests.pipeline.corpus import CASES
from tests.pipeline.videos import write_video


def counts(text: str) -> tuple[int, int]:
    """(videos decoded, frames through backbones) as the output says."""
    found = re.search(r"this run decoded (\d+) videos and ran (\d+)\s+frames", " ".join(text.split()))
    assert found, text
    return int(found[1]), int(found[2])


def run_folder(text: str):
    found = re.search(r"results: (\S+)/results.parquet", text)
    assert found, text
    return found[1]


def test_the_whole_way_then_again_then_with_another_teacher(dynaprop, workplace):
    first = dynaprop("run", "tiny")
    assert first.code == 0, first.err
    assert counts(first.err) == (15, 2 * 150)
    for column in ("model", "n_s", "n_t", "top-1", "mAP", "GMACs"):
        assert column in first.out
    assert "GFLOPs" not in first.out, "the paper has no figures for these backbones"
    folder = run_folder(first.out)
    results = pd.read_parquet(f"{folder}/results.parquet")
    assert set(KEY) | set(METRICS) | {"run_id", "schema_version"} <= set(results.columns)
    swept = results[results["experiment"] == "default"]
    assert set(swept["model"]) == {"student", "teacher", "static-weighted", "dynamic"}
    assert set(swept["seed"]) == {0, 1}
    assert set(swept.loc[swept["model"] == "teacher", "n_t"]) == {2, 4, 6}
    kept = results[results["experiment"] == "train"]
    assert set(kept["model"]) == set(MODELS) - {"dynamic-shuffled"}
    assert set(kept["seed"]) == {0}
    assert not results.duplicated(KEY).any()
    predictions = pd.read_parquet(f"{folder}/predictions.parquet")
    assert set(KEY) <= set(predictions.columns)
    assert predictions["scores"].map(len).eq(3).all()
    checkpoints = list((workplace / "runs").rglob("dynamic-6+2.safetensors"))
    assert len(checkpoints) == 1
    assert load_checkpoint(checkpoints[0]).info.class_names == ("a", "b", "c")

    second = dynaprop("run", "tiny")
    assert second.code == 0
    assert counts(second.err) == (0, 0)
    assert "12 of 12 results are there already" in second.err
    assert "frames in" not in second.err  # nothing was trained
    assert run_folder(second.out) == folder
    pd.testing.assert_frame_equal(pd.read_parquet(f"{folder}/results.parquet"), results)

    other = dynaprop("run", "tiny", "--recipe", "other")
    assert other.code == 0
    assert counts(other.err) == (15, 150)  # the new teacher alone
    assert run_folder(other.out) != folder


def test_folds_of_another_number_are_another_table(dynaprop, workplace):
    """Rows of 2 and of 3 folds lie in the same run folder and must not be averaged."""
    assert dynaprop("extract", "tiny").code == 0
    for folds in ("3", "2"):
        outcome = dynaprop("sweep", "tiny", "--folds", folds, "--seeds", "1")
        assert outcome.code == 0, outcome.err
        assert "15 test videos; 1 seed" in outcome.out
    results = pd.read_parquet(f"{run_folder(outcome.out)}/results.parquet")
    assert set(results["split"]) == {"2-fold", "3-fold"}


def test_checkpoints_that_were_not_all_written_are_written_again(dynaprop, workplace):
    assert dynaprop("extract", "tiny").code == 0
    first = dynaprop("train", "tiny")
    assert first.code == 0 and "make 3 steps, which hardly train a model" in first.err
    (marker,) = (workplace / "runs").rglob("dynamic-6+2.json")
    marker.unlink()
    others = {path: path.stat().st_mtime_ns for path in marker.parent.glob("student*")}
    assert dynaprop("train", "tiny").code == 0
    assert marker.exists()
    assert {path: path.stat().st_mtime_ns for path in marker.parent.glob("student*")} == others


def test_experiments_share_what_was_trained_and_go_on(dynaprop, workplace):
    assert dynaprop("extract", "tiny").code == 0
    few = dynaprop("sweep", "tiny", "--experiment", "few")
    assert few.code == 0, few.err
    both = dynaprop("sweep", "tiny", "--experiment", "two")
    assert both.code == 0, both.err
    said = " ".join(both.err.split())
    assert "2 of 4 results are there already" in said  # `few`, when `ablation` is added to it
    assert "left out: ablation with recipe other" in said
    assert "run: dynaprop extract tiny --recipe other" in said
    for title in ("tiny, lite, few, one split", "tiny, lite, ablation, one split"):
        assert title in both.out
    results = pd.read_parquet(f"{run_folder(both.out)}/results.parquet")
    assert results["experiment"].value_counts().to_dict() == {"few": 2, "ablation": 2}
    frames = pd.read_parquet(f"{run_folder(both.out)}/frame_scores.parquet")
    assert set(frames["model"]) == {"student", "teacher", "dynamic"}
    assert dynaprop("extract", "tiny", "--recipe", "other").code == 0
    wider = dynaprop("sweep", "tiny", "--experiment", "two")
    assert wider.code == 0
    assert "tiny, other, ablation, one split" in wider.out
    alone = dynaprop("sweep", "tiny", "--experiment", "ablation", "--recipe", "other")
    assert "2 of 2 results are there already" in alone.err


def test_other_class_names_are_another_run(dynaprop, workplace):
    """Index labels: a class more in classes.txt changes mAP and checkpoints although no label changes."""
    lines = [f"{label}/{number}.mp4 {index}" for index, label in enumerate("abc") for number in range(5)]
    (workplace / "train.txt").write_text("\n".join(line for line in lines if "4.mp4" not in line))
    (workplace / "test.txt").write_text("\n".join(line for line in lines if "4.mp4" in line))
    catalog = workplace / "catalog.yaml"
    annotations = "annotations: {format: list, classes: ../classes.txt, train: ../train.txt, test: ../test.txt}"
    catalog.write_text(catalog.read_text().replace("root: videos,", f"root: videos, {annotations},"))
    folders = set()
    for names in ("a b c", "a b c d"):
        (workplace / "classes.txt").write_text("\n".join(names.split()))
        outcome = dynaprop("run", "tiny", "--seeds", "1")
        assert outcome.code == 0, outcome.err
        folders.add(run_folder(outcome.out))
    assert len(folders) == 2


def test_other_videos_under_the_old_names_are_trained_on(dynaprop, workplace):
    """The store was deleted in between, so that the new features lie in the very rows of the old ones."""
    first = dynaprop("run", "tiny", "--seeds", "1")
    shutil.rmtree(workplace / "stores")
    for number, path in enumerate(sorted((workplace / "videos").rglob("*.mp4"))):
        write_video(path, frames=20, seed=500 + number)
    second = dynaprop("run", "tiny", "--seeds", "1")
    assert second.code == 0
    assert run_folder(second.out) != run_folder(first.out)


def test_damaged_features_are_not_trained_on(dynaprop, workplace):
    """Rows in the wrong place are finite and plausible; only the checksum tells."""
    assert dynaprop("extract", "tiny").code == 0
    chunk = next((workplace / "stores").rglob("test_resnet*/c/0/0"))
    data = chunk.read_bytes()
    chunk.write_bytes(data[4000:] + data[:4000])
    outcome = dynaprop("train", "tiny")
    assert outcome.code == 1
    assert "damaged (a checksum differs); run `dynaprop verify TARGET --repair`" in outcome.err
    chunk.write_bytes(data[:1000])
    assert "is damaged" in dynaprop("train", "tiny").err


def test_damaged_tables_are_named_and_can_be_repaired(dynaprop, workplace):
    first = dynaprop("run", "tiny", "--seeds", "1")
    ledger = next((workplace / "stores").rglob("ledger/test_resnet*/000000.parquet"))
    ledger.write_bytes(b"noise")
    assert "is damaged" in dynaprop("train", "tiny", "--n-s", "5").err
    assert "is damaged" in dynaprop("datasets").err
    assert "its ledger cannot be read" in dynaprop("verify", "tiny", "--repair").out
    assert dynaprop("extract", "tiny").code == 0
    assert dynaprop("verify", "tiny").code == 0
    for unit in (workplace / "runs").rglob("units/*/results.parquet"):
        unit.write_bytes(b"noise")
    while "results are damaged" in (again := dynaprop("run", "tiny", "--seeds", "1")).err:
        assert again.code == 1
    assert again.code == 0
    assert run_folder(again.out) == run_folder(first.out)
    next((workplace / "stores").rglob("manifest.parquet")).write_bytes(b"noise")
    outcome = dynaprop("extract", "tiny")
    assert outcome.code == 1
    assert "delete the folder" in outcome.err


def test_a_folder_needs_no_catalog_entry_and_folds_work(dynaprop, workplace):
    outcome = dynaprop("run", str(workplace / "videos" / ".." / "videos"), "--folds", "2", "--seeds", "1")
    assert outcome.code == 0, outcome.err
    results = pd.read_parquet(f"{run_folder(outcome.out)}/results.parquet")
    assert sorted(results["fold"].dropna().unique()) == [0, 1]
    by_fold = results[results["fold"].notna()].drop_duplicates("fold")
    assert by_fold["n_videos"].sum() == 15


def test_a_broken_file_is_named_and_left_out(dynaprop, workplace):
    (workplace / "videos" / "a" / "broken.mp4").write_bytes(b"nothing")
    CASES["truncated-after-45.mp4"].build(workplace / "videos" / "a" / "cut.mp4")
    outcome = dynaprop("extract", "tiny")
    err = " ".join(outcome.err.split())
    assert outcome.code == 0
    assert "failed: a/broken.mp4: unreadable" in err
    lack = "the file holds 76.7% of the frames that it announces"
    assert f"partial: 1 videos are used as far as possible, a/cut.mp4 first: {lack}" in err
    assert "features: 16 of 17 videos" in err
    listing = dynaprop("datasets")
    assert "1 unreadable" in " ".join(listing.out.split())
    rows = [row for row in listing.out.splitlines() if "test_" in row]
    assert rows
    for row in rows:
        assert [cell.strip() for cell in row.split("│")[-3:-1]] == ["1", "0"]
    named = dynaprop("datasets", "--failed").out
    assert "tiny, failed: a/broken.mp4: unreadable" in named
    assert f"tiny, partial: a/cut.mp4: missing_frames: {lack}" in named
    write_video(workplace / "videos" / "a" / "broken.mp4")
    assert counts(dynaprop("extract", "tiny", "--retry-failed").err)[0] == 1


def test_absent_videos_are_counted_apart_and_extracted_when_they_come(dynaprop, workplace):
    lines = [f"{label}/{number}.mp4 {label}" for label in "abc" for number in range(5)]
    (workplace / "train.txt").write_text("\n".join([line for line in lines if "4.mp4" not in line] + ["a/7.mp4 a"]))
    (workplace / "test.txt").write_text("\n".join([line for line in lines if "4.mp4" in line] + ["b/9.mp4 b"]))
    (workplace / "classes.txt").write_text("a\nb\nc")
    catalog = workplace / "catalog.yaml"
    annotations = "annotations: {format: list, classes: ../classes.txt, train: ../train.txt, test: ../test.txt}"
    catalog.write_text(catalog.read_text().replace("root: videos,", f"root: videos, {annotations},"))
    outcome = dynaprop("run", "tiny", "--seeds", "1")
    err = " ".join(outcome.err.split())
    assert outcome.code == 0, err
    assert "failed" not in err
    assert "absent: 2 listed videos are not on disk, a/7.mp4 first; their ids: " in err
    assert "features: 15 of 15 videos" in err
    assert "2 of 17 videos have no features" in err
    assert "3 of 4 test videos evaluated" in " ".join(outcome.out.split())
    (table,) = (workplace / "stores").rglob("manifest.parquet")
    manifest = pd.read_parquet(table)
    assert manifest.loc[manifest["error_kind"] == "absent", "video_id"].tolist() == ["a/7.mp4", "b/9.mp4"]
    rows = [row for row in dynaprop("datasets").out.splitlines() if "test_" in row]
    assert len(rows) == 2
    for row in rows:
        assert [cell.strip() for cell in row.split("│")[-6:-1]] == ["15", "150", "0", "0", "2"]
    assert counts(dynaprop("extract", "tiny", "--retry-failed").err) == (0, 0)
    write_video(workplace / "videos" / "b" / "9.mp4", seed=99)
    outcome = dynaprop("extract", "tiny")
    assert counts(outcome.err) == (1, 20)
    assert "absent: 1 listed videos are not on disk, a/7.mp4 first" in " ".join(outcome.err.split())
    assert dynaprop("verify", "tiny").code == 0


def test_dry_run_says_what_to_expect_and_writes_no_feature(dynaprop, workplace):
    outcome = dynaprop("extract", "tiny", "--dry-run")
    assert outcome.code == 0
    assert re.search(
        r"15 videos, 150 clips; to do: 150 clips in 4 shards, \d+ MiB, about 0:\d\d:\d\d h on cpu", outcome.out
    )
    assert not list((workplace / "stores").rglob("ledger"))


def test_what_only_looks_like_a_video_is_counted_in_one_line(dynaprop, workplace):
    for name in ("a/1.gif", "a/2.gif", "b/x.VOB", "only/3.gif", "a/y.mp4.part", "@eaDir/a/1.mp4", "lost+found/2.mp4"):
        path = workplace / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"nothing")
    line = "5 files are passed over: 3 .gif, 1 .vob, 1 unfinished download (known extensions: .mp4 .mkv"
    for arguments in (("extract", "tiny", "--dry-run"), ("extract", "tiny"), ("datasets",)):
        outcome = dynaprop(*arguments)
        err = " ".join(outcome.err.split())
        assert outcome.code == 0
        assert err.count(line) == 1, arguments
        assert ("no class, as no video lies in it: 'only'" in err) == (arguments[0] == "extract")
    assert "features: 15 of 15 videos" in " ".join(dynaprop("extract", "tiny").err.split())


def test_a_folder_without_labels_can_be_extracted_but_not_trained(dynaprop, workplace):
    for number in range(2):
        write_video(workplace / "flat" / f"{number}.mp4", seed=number)
    assert dynaprop("extract", "flat").code == 0
    outcome = dynaprop("train", "flat")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "put each class in a folder of its own" in outcome.err


def test_verify_and_garbage_collection(dynaprop, workplace):
    assert dynaprop("extract", "tiny").code == 0
    good = dynaprop("verify", "tiny")
    assert good.code == 0
    assert "t: 15 videos in 4 shards, 0 shards not extracted, 0 problems" in good.out
    chunk = next((workplace / "stores").rglob("test_resnet*/c/1/0"))
    data = bytearray(chunk.read_bytes())
    data[0] ^= 1
    chunk.write_bytes(data)
    bad = dynaprop("verify", "tiny")
    assert bad.code == 1
    assert "checksum differs" in bad.out
    repaired = dynaprop("verify", "tiny", "--repair")
    assert repaired.code == 0, repaired.err
    assert "repair: 4 videos in 1 shards recomputed" in repaired.out  # the bad shard's teacher features, nothing else
    assert counts(dynaprop("extract", "tiny").err) == (0, 0)
    assert dynaprop("verify", "tiny").code == 0
    catalog = workplace / "catalog.yaml"
    text = catalog.read_text()
    catalog.write_text(
        re.sub(r"  other:.*\n", "", re.sub(r"  t2:.*\n", "", text))
        .replace("size: 64", "size: 80")
        .replace("lite, other", "lite")
    )
    assert "1 feature keys deleted" in dynaprop("datasets", "--gc").err
    assert {path.name.split("-")[0] for path in (workplace / "stores").rglob("ledger/*")} == {"test_efficientnet"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "tinny"], 2, "did you mean 'tiny'"),
        (["run", "tiny", "--recipe", "lit"], 2, "did you mean 'lite'"),
        (["sweep", "tiny", "--sweep", "defualt"], 2, "did you mean 'default'"),
        (["extract", "tiny", "--device", "gpu"], 2, "device 'gpu' cannot be used here"),
        (["train", "tiny"], 1, "run: dynaprop extract tiny"),
        (["verify", "tiny"], 1, "has no features yet"),
        (["run", "empty"], 2, "no video"),
        (["run", "one"], 2, "at least two classes"),
        (["run", "single"], 2, "has a single video"),
        (["run", "tiny", "--folds", "9"], 2, "9 folds"),
        (["run", "tiny", "--folds", "1"], 2, "at least 2"),
        (["extract", "bad"], 1, "none of the 2 videos could be used"),
        (["extract", "away"], 2, "none of the 3 listed videos is on disk"),
    ],
)
def test_one_clear_line_and_the_right_exit_code(dynaprop, workplace, arguments, code, message):
    (workplace / "empty").mkdir()
    write_video(workplace / "one" / "a" / "1.mp4")
    write_video(workplace / "one" / "a" / "2.mp4")
    for name in ("a/1", "a/2", "b/1"):
        write_video(workplace / "single" / f"{name}.mp4")
    for label in "ab":
        (workplace / "bad" / label).mkdir(parents=True)
        (workplace / "bad" / label / "x.mp4").write_bytes(b"?")
    (workplace / "away" / "a").mkdir(parents=True)
    for number in range(3):
        (workplace / "away" / "a" / f"{number}.mp4").symlink_to("/not/mounted")
    outcome = dynaprop(*arguments)
    assert outcome.code == code, outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in outcome.err


def test_wrong_use_of_the_command_line_is_2(dynaprop):
    assert dynaprop("run").code == 2
    assert dynaprop("fly").code == 2
    assert dynaprop("extract", "tiny", "--workers", "0").code == 2
    assert dynaprop("--help").code == 0


def test_a_traceback_only_with_v(dynaprop):
    assert "Traceback" in dynaprop("run", "tinny", "-v").err


def test_an_interrupted_sweep_keeps_what_was_measured_and_decodes_nothing(dynaprop, workplace, monkeypatch):
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("epochs: 3", "epochs: 60"))
    assert dynaprop("extract", "tiny").code == 0
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "dynaprop.flows.cli", "sweep", "tiny", "--seeds", "40"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    end = time.monotonic() + 120
    while len(list(workplace.rglob("units/*.json"))) < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    (folder,) = (workplace / "runs").iterdir()
    kept = len(pd.read_parquet(folder / "results.parquet"))  # joined although the run was interrupted
    assert kept >= 3
    monkeypatch.setattr(
        "dynaprop.pipeline.decoding.pool.DecodePool.__init__", lambda *_, **__: pytest.fail("a video is decoded")
    )
    monkeypatch.setattr(
        "dynaprop.pipeline.backbones.backbone.FrameBackbone.__init__", lambda *_, **__: pytest.fail("a backbone runs")
    )
    again = dynaprop("sweep", "tiny", "--seeds", "2")
    assert again.code == 0, again.err
    assert re.search(r"[1-9]\d* of 12 results are there already", again.err)
