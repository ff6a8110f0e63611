"""`dynaprop predict` and `export` on real videos: as the sweep scored them, anywhere, and what users get wrong."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dynaprop as api
from dynaprop.flows.commands.predict import as_record, as_text
from dynaprop.heads.recognise.prediction import Prediction
from dynaprop.pipeline.video.container import VideoError
from tests.conftest import REPOSITORY
from tests.pipeline.videos import write_video


@pytest.fixture
def trained(dynaprop, workplace, data_root):
    """The workplace with real videos, and models trained on them and kept."""
    shutil.rmtree(workplace / "videos")
    for label in ("hug", "kick", "point"):
        (workplace / "videos" / label).mkdir(parents=True)
        for video in sorted((data_root / "ut-interaction" / "videos" / label).iterdir())[:5]:
            shutil.copy(video, workplace / "videos" / label)
    for command in ("extract", "train"):
        assert (outcome := dynaprop(command, "tiny")).code == 0, outcome.err
    (run,) = (workplace / "runs").iterdir()
    return run


def scores_of(run, model="dynamic", n_s=6):
    rows = pd.read_parquet(run / "predictions.parquet")
    rows = rows[(rows["model"] == model) & (rows["n_s"] == n_s) & (rows["seed"] == 0)]
    return {row.video_id: np.array(row.scores) for row in rows.itertuples()}


def test_a_run_then_its_export_elsewhere_score_videos_as_the_sweep_did(
    dynaprop, trained, workplace, monkeypatch, tmp_path_factory
):
    expected = scores_of(trained)
    files = [f"videos/{video}" for video in expected]
    assert len(files) >= 3

    def check(model, places):
        outcome = dynaprop("predict", model, *places, "--json", "--top", "3")
        assert outcome.code == 0, outcome.err
        records = [json.loads(line) for line in outcome.out.splitlines()]
        assert [record["video"] for record in records] == list(map(str, places))
        for record, (video, scores) in zip(records, expected.items(), strict=True):
            found = {one["class"]: one["probability"] for one in record["top"]}
            np.testing.assert_allclose([found[name] for name in ("hug", "kick", "point")], scores, atol=1e-3)
            assert record["class"] == ("hug", "kick", "point")[int(scores.argmax())], video
            assert record["frames"] == {"student": 6, "teacher": 2} and record["gmacs"] > 0
        return records

    check("tiny", files)  # the dataset's newest run
    check("videos", files)  # the folder
    check(trained.name, files)
    from_run = check(str(trained / "checkpoints" / "stratified-seed0" / "dynamic-6+2.safetensors"), files)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert (outcome := dynaprop("export", "tiny", "--output", str(elsewhere / "model"))).code == 0, outcome.err
    assert f"model: {elsewhere / 'model'}" in outcome.out
    assert f"model: dynamic-6+2, seed 0, of {trained}" in " ".join(outcome.err.split())
    for command in (
        ("predict", str(elsewhere / "model"), files[0], "--seed", "1"),
        ("export", str(elsewhere / "model")),
    ):
        refused = dynaprop(*command)
        assert refused.code == 2 and "is an exported model" in refused.err
    for file in files:
        (elsewhere / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(workplace / file, elsewhere / file)
    shutil.rmtree(workplace / "runs")
    shutil.rmtree(workplace / "stores")
    (workplace / "catalog.yaml").write_text("nonsense")
    monkeypatch.setenv("DYNAPROP_HOME", str(elsewhere / "home"))
    from_export = check(str(elsewhere / "model"), [str(elsewhere / file) for file in files])
    assert [one["gmacs"] for one in from_export] == [one["gmacs"] for one in from_run]
    with api.load(elsewhere / "model") as model:
        predictions = model.predict([elsewhere / file for file in files])
        features = model.features([elsewhere / files[0]])
    for prediction, scores in zip(predictions, expected.values(), strict=True):
        np.testing.assert_allclose(prediction.scores, scores, atol=1e-3)
    assert features[0].student.features.shape[0] == 6 and features[0].teacher.features.shape[0] == 2
    check_card((elsewhere / "model" / "README.md").read_text(), len(expected))


def check_card(card, n_videos):
    for part in ("# Dynamic-STE on tiny", "hug, kick, point", f"Evaluated on {n_videos} of {n_videos} test videos"):
        assert part in card
    assert "| student | test_efficientnet | 32 | 6 |" in card and "| teacher | test_resnet | 64 | 2 |" in card
    assert "There is one seed, so no interval over seeds." in card
    assert f"{n_videos} test videos are few" in card


def test_what_people_see_and_get_wrong(dynaprop, trained, workplace):
    (workplace / "new" / "deeper").mkdir(parents=True)
    (workplace / "new" / "notes.txt").write_text("no video")
    (workplace / "none").mkdir()
    (video,) = [shutil.copy(next((workplace / "videos" / "hug").iterdir()), workplace / "new" / "deeper")]
    write_video(workplace / "new" / "b.mp4", frames=40)
    fine = dynaprop("predict", "tiny", "new")
    assert fine.code == 0, fine.err
    assert fine.out.count(" frames, ") == 2 and "6 student + 2 teacher frames" in fine.out and "GMACs" in fine.out
    assert "decode" in fine.out and " %" in fine.out
    (workplace / "new" / "a.mp4").write_text("broken")
    some = dynaprop("predict", "tiny", "new", "gone.mp4", "none", "--json", "--top", "1")
    assert some.code == 1
    records = [json.loads(line) for line in some.out.splitlines()]
    kinds = {record["video"]: record.get("error", {}).get("kind") for record in records}
    assert [kinds.pop(name) for name in ("new/a.mp4", "gone.mp4", "none")] == ["unreadable", "unreadable", "no_video"]
    assert list(kinds.values()) == [None, None]
    assert all(len(record["top"]) == 1 for record in records if "top" in record)
    assert "failed: new/a.mp4: unreadable" in some.err and "No such file" in some.err
    assert "failed: none: no_video: no videos in this folder" in some.err
    assert "3 of 5 videos failed: 1 no_video, 2 unreadable" in some.err
    drawn = dynaprop("predict", "tiny", video, "--timeline", "out.png")
    assert drawn.code == 0, drawn.err
    with Image.open("out.png") as picture:
        assert picture.width > 1000 and np.asarray(picture.convert("L")).std() > 10
    for arguments, message in (
        (("tiny", "new", "--timeline", "x.png"), "--timeline draws one video, these are 3"),
        (("tiny", video, "--timeline", "x.jpg"), "should end in .png"),
        (("tiny", "none"), "none: no videos here"),
        (("tinny", video), "did you mean"),
        (("tiny",), "VIDEO"),
        (("tiny", video, ""), "a video's name is empty"),
        (("tiny", video, "--seed", "1"), "`dynaprop train TARGET --recipe lite --seeds 2` keeps it"),
        (("tiny", video, "--top", "0"), "--top"),
        ((str(trained / "checkpoints" / "stratified-seed0" / "nothing.json"), video), "no checkpoint"),
    ):
        wrong = dynaprop("predict", *arguments)
        assert wrong.code == 2 and message in wrong.err, (arguments, wrong.err)


def test_names_that_would_command_a_terminal_are_shown_harmless():
    prediction = Prediction("new\x1b[2J.mp4", top=(("hug\x1b[31m\nb.mp4: kick 99 %", 0.75), ("ki\x07ck", 0.25)))
    shown = as_text(prediction)
    assert shown.startswith(r"new\x1b[2J.mp4: hug\x1b[31m\nb.mp4: kick 99 % 75.0 %" "\n  then ki\\x07ck 25.0\n")
    failed = Prediction("bad\udcff.mp4", error=VideoError("unreadable", "why"))
    json.dumps(as_record(failed), ensure_ascii=False).encode("utf-8")  # no half of a surrogate pair


def test_exports_of_each_kind_and_what_is_not_there(dynaprop, trained, workplace):
    video = str(next((workplace / "videos" / "kick").iterdir()))
    for model, frames in (("student", {"student": 6}), ("teacher", {"teacher": 6}), ("static-avg", None)):
        options = ("--n-t", "6") if model == "teacher" else ()
        exported = dynaprop("export", "tiny", "--model", model, *options)
        assert exported.code == 0, exported.err
        folder = exported.out.split()[1]
        assert folder.startswith(str(workplace / "exported" / f"tiny-lite-{model}-"))
        outcome = dynaprop("predict", folder, video, "--json")
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["frames"] == (frames or {"student": 6, "teacher": 2})
    assert dynaprop("export", "tiny", "--model", "student").code == 2  # it is there
    assert dynaprop("export", "tiny", "--model", "student", "--force").code == 0
    for options, message in (
        (("--model", "teacher"), "say which: --n-t 2 or --n-t 6"),
        (("--seed", "3"), "--seeds 4` keeps it"),
        (("--n-s", "9"), "`dynaprop train TARGET --recipe lite --n-s 9` keeps it"),
        (("--model", "studnet"), "unknown model 'studnet' (did you mean 'student'?)"),
    ):
        wrong = dynaprop("export", "tiny", *options)
        assert wrong.code == 2 and message in " ".join(wrong.err.split()), wrong.err
    (workplace / "catalog.yaml").write_text((workplace / "catalog.yaml").read_text().replace("size: 32", "size: 48"))
    (checkpoint,) = (workplace / "runs").rglob("dynamic-6+2.safetensors")
    other = dynaprop("predict", str(checkpoint), video, "--seed", "9")
    assert other.code == 2 and "is dynamic-6+2 at seed 0: leave out" in " ".join(other.err.split())
    lost = dynaprop("predict", "tiny", video)
    assert lost.code == 1 and "was trained on the features test_efficientnet-32-" in lost.err


def test_neither_command_loads_prefect(trained, workplace):
    video = next((workplace / "videos" / "kick").iterdir())
    code = (
        "import sys\nfrom dynaprop.flows import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('prefect', 'dask')]"
    )
    for arguments in (("predict", "tiny", str(video)), ("export", "tiny")):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
