"""`dynaprop transcode` and the copies that it makes, from the command line to trained models."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dynaprop.pipeline.video.identity import file_identity
from tests.pipeline.videos import write_video


def flat(text: str) -> str:
    return " ".join(text.split())


def manifest(store: Path) -> pd.DataFrame:
    (file,) = store.glob("*/manifest.parquet")
    return pd.read_parquet(file).set_index("video_id")


def test_copies_are_a_dataset_of_their_own(dynaprop, workplace, monkeypatch):
    # Drawing is tested elsewhere.
    monkeypatch.setattr(
        "dynaprop.heads.report.chart._render", lambda *_, kind, **__: b"<svg/>" if kind == "svg" else b"png"
    )
    early = dynaprop("extract", "tiny:16p")
    assert early.code == 1
    assert "no video of tiny has a copy of short side 16 yet" in early.err
    assert "run: dynaprop transcode tiny --short-side 16" in early.err

    made = dynaprop("transcode", "tiny", "--short-side", "16")
    assert made.code == 0, made.err
    assert "copies: 15 of 15 videos; this run made 15, 0 were there; 0." in flat(made.err)
    assert "next: dynaprop extract tiny:16p" in made.err
    folder = workplace / "transcoded" / "tiny" / "16p"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    assert len(before) == 15
    again = dynaprop("transcode", "tiny", "--short-side", "16")
    assert again.code == 0
    assert "this run made 0, 15 were there" in flat(again.err)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")} == before

    for target in ("tiny", "tiny:16p"):
        extracted = dynaprop("extract", target)
        assert extracted.code == 0, extracted.err
        assert "features: 15 of 15 videos; this run decoded 15 videos" in flat(extracted.err)
    originals, copies = manifest(workplace / "stores" / "tiny"), manifest(workplace / "stores" / "tiny.16p")
    assert list(originals.index) == list(copies.index) == sorted(originals.index)
    assert set(zip(originals["width"], originals["height"], strict=True)) == {(64, 48)}
    assert set(zip(copies["width"], copies["height"], strict=True)) == {(22, 16)}
    for video, row in copies.iterrows():
        assert row["path"] == f"{video}.mp4"
        identity = file_identity(folder / row["path"])
        assert (row["size"], row["mtime_ns"], row["ctime_ns"], row["content"]) == (*identity.stamp, identity.content)
        assert list(row["timestamps"]) == pytest.approx(list(originals.loc[video, "timestamps"]), abs=1e-3)
        assert list(row["frames"]) == list(originals.loc[video, "frames"])

    trained = [dynaprop("train", target) for target in ("tiny", "tiny:16p")]
    assert [outcome.code for outcome in trained] == [0, 0], trained
    runs = {path.name.split("-")[0]: path for path in (workplace / "runs").iterdir()}
    assert set(runs) == {"tiny", "tiny.16p"}
    predictions = [pd.read_parquet(runs[name] / "predictions.parquet") for name in ("tiny", "tiny.16p")]
    keys = ["model", "video_id"]
    tested = [table.sort_values(keys).reset_index(drop=True) for table in predictions]
    assert list(tested[0]["video_id"]) == list(tested[1]["video_id"])  # the same split
    assert tested[0]["labels"].map(tuple).equals(tested[1]["labels"].map(tuple))
    results = pd.read_parquet(runs["tiny.16p"] / "results.parquet")
    assert set(results["dataset"]) == {"tiny.16p"}

    assert dynaprop("verify", "tiny:16p", "--deep", "--sample", "3", "--seed", "0").code == 0
    page = dynaprop("report", "tiny:16p")
    assert page.code == 0, page.err
    assert f"{runs['tiny.16p']}/report.html" in page.out
    assert "thumbnails of" in page.err
    listing = dynaprop("datasets")
    assert "transcoded copies" in flat(listing.out)
    assert "not in the catalog" not in flat(listing.out)


def test_what_fails_is_absent_and_what_changes_is_asked_for(dynaprop, workplace):
    (workplace / "videos" / "a" / "0.mp4").write_text("no video")
    (workplace / "videos" / "c" / "4.mp4").write_text("no video either")
    made = dynaprop("transcode", "videos", "--short-side", "16")  # tiny, by its folder
    assert made.code == 0
    assert "failed: 2 videos (2 unreadable), a/0.mp4 first: unreadable: Invalid data" in flat(made.err)
    assert "copies: 13 of 15 videos; this run made 13" in flat(made.err)
    extracted = dynaprop("extract", "videos:16p")
    assert extracted.code == 0, extracted.err
    assert "absent: 2 listed videos are not on disk, a/0.mp4 first" in flat(extracted.err)
    assert "features: 13 of 13 videos" in flat(extracted.err)

    write_video(workplace / "videos" / "a" / "0.mp4")
    write_video(workplace / "videos" / "b" / "3.mp4", frames=31)
    for command in ("extract", "train"):
        changed = dynaprop(command, "videos:16p")
        assert changed.code == 1
        assert "2 of 15 videos have no copy of short side 16 yet, a/0.mp4 first" in flat(changed.err)
        assert "run: dynaprop transcode videos --short-side 16" in flat(changed.err)
    assert dynaprop("transcode", "videos", "--short-side", "16").code == 0
    extracted = dynaprop("extract", "tiny:16p")
    assert extracted.code == 0
    assert "features: 14 of 14 videos; this run decoded 2 videos" in flat(extracted.err)
    assert manifest(workplace / "stores" / "tiny.16p").query("not removed").loc["b/3.mp4", "n_frames"] == 31


def test_no_video_can_be_copied(dynaprop, workplace):
    for path in (workplace / "videos").rglob("*.mp4"):
        path.write_text("no video")
    outcome = dynaprop("transcode", "tiny")
    assert outcome.code == 1
    assert "none of the 15 videos could be copied" in outcome.err
    assert "next:" not in outcome.err
    assert "none of the 15 videos of tiny could be copied" in flat(dynaprop("extract", "tiny:256p").err)


def test_wrong_use(dynaprop, workplace):
    for arguments, message in (
        (("transcode", "tiny:16p"), "'tiny:16p' stands for copies; to make them, run: dynaprop transcode tiny"),
        (("transcode", "tinny"), "no dataset of catalog.yaml has this name (did you mean 'tiny'?)"),
        (("extract", "tinny:16p"), "'tinny': no folder, and no dataset of catalog.yaml has this name (did you mean"),
        (("transcode", "tiny", "--short-side", "15"), "short side 15: pictures in H.264 have even sides"),
        (("report", "tinny:16p"), "no run 'tinny:16p'"),
    ):
        outcome = dynaprop(*arguments)
        assert outcome.code == 2, outcome.err
        assert message in flat(outcome.err)
    frames = workplace / "frames" / "walk"
    frames.mkdir(parents=True)
    (frames / "img_00001.jpg").touch()
    (workplace / "list.txt").write_text("walk 1 0\n")
    (workplace / "classes.txt").write_text("a\nb\n")
    catalog = (workplace / "catalog.yaml").read_text()
    form = "{format: mmaction2, classes: ../classes.txt, train: ../list.txt, frames: 'img_{:05d}.jpg', fps: 25}"
    (workplace / "catalog.yaml").write_text(
        catalog.replace("datasets:", f"datasets:\n  pictures: {{root: frames, annotations: {form}}}")
    )
    outcome = dynaprop("transcode", "pictures")
    assert outcome.code == 2
    assert "pictures: walk is a folder of pictures, which need no transcoding" in flat(outcome.err)


def test_copies_of_a_plain_folder(dynaprop, workplace):
    shutil.copytree(workplace / "videos", workplace / "others")
    assert dynaprop("transcode", "others", "--short-side", "16").code == 0
    assert dynaprop("extract", f"{os.curdir}/others:16p").code == 0
    (store,) = (workplace / "stores").iterdir()
    assert store.name.startswith("others-")
    assert store.name.endswith(".16p")
    assert len(manifest(store)) == 15
