"""Slips in labels and models that have learnt nothing, on the command line with real videos."""

import re
import shutil
import unicodedata

import pandas as pd
import pytest

ACCENT = unicodedata.normalize("NFC", "étreinte")


def folder(workplace, data_root, places):
    """Real videos of UT-Interaction: so many of a class in each of these folders."""
    shutil.rmtree(workplace / "videos")
    taken = dict.fromkeys(("hug", "kick"), 0)
    for place, (label, count) in places.items():
        files = sorted((data_root / "ut-interaction" / "videos" / label).iterdir())
        (workplace / "videos" / place).mkdir(parents=True)
        for video in files[taken[label] : taken[label] + count]:
            shutil.copy(video, workplace / "videos" / place)
        taken[label] += count
    return workplace / "videos"


def lines(text):
    return " ".join(text.split())


@pytest.fixture
def slip(workplace, data_root):
    """`train/Kick` and `test/kick`."""
    places = {"train/Kick": ("kick", 3), "train/hug": ("hug", 3), "test/kick": ("kick", 5), "test/hug": ("hug", 5)}
    return folder(workplace, data_root, places)


NOTES = [
    "note: classes that differ only in case, width, spaces, '_' or '-': 'Kick' and 'kick'.",
    "note: given split: 1 of 3 classes without a training video: no model can learn them, and their test videos count "
    "as wrong ('kick')",
    "note: given split: 1 of 3 classes without a test video: nothing is measured of them, and each counts 0 in mAP "
    "('Kick')",
]


def test_a_slip_is_said_before_anything_is_done_and_beside_the_results(dynaprop, slip, workplace):
    dry = dynaprop("extract", "tiny", "--dry-run")
    assert dry.code == 0
    assert all(note in lines(dry.err) for note in NOTES)
    assert "16 videos" in dry.out
    assert not list(workplace.glob("runs/*"))

    whole = dynaprop("run", "tiny", "--seeds", "1")
    assert whole.code == 0, whole.err
    for note in NOTES:
        assert lines(whole.err).count(note) == 1  # though it consists of three flows
        assert note in lines(whole.out)
    # What is known of the answer by hand: half of the test videos are hugs, and no model can be right in the others.
    assert re.search(r"always the largest class *│ *│ *│ *50\.0 ", whole.out)
    assert re.search(r"chance *│ *│ *│ *33\.3 ", whole.out)
    assert "is shown to be above always answering the largest class" in lines(whole.out)
    (run,) = (workplace / "runs").iterdir()
    results = pd.read_parquet(run / "results.parquet")
    assert (results["largest_class"] == 0.5).all() and (results["chance"] == 1 / 3).all()
    page = lines((run / "report.html").read_text())
    for note in NOTES:
        assert note.removeprefix("note: ").replace("'", "&#39;") in page
    assert "To know about labels and split" in page
    assert "Chance is 33.3 % of top-1 and" in page and "always answering the largest class has 50.0 %" in page
    assert "not shown to be above it" in page or "points below always answering the largest class" in page
    assert re.search(r'<th scope="row">always the largest class</th><td></td><td></td><td>50\.0</td>', page)
    export = dynaprop("export", "tiny", "--output", str(workplace / "model"))
    assert export.code == 0, export.err
    card = (workplace / "model" / "README.md").read_text()
    assert "| top-1 % of always answering the largest class | 50.0 | 50.0 |" in card
    assert "This model is NOT shown to be above always answering the largest class." in card


def test_notes_are_those_of_the_split_that_is_used(dynaprop, slip, workplace):
    assert dynaprop("extract", "tiny").code == 0
    for options, is_given in ((("--folds", "2"), False), ((), True)):
        outcome = dynaprop("sweep", "tiny", "--sweep", "few", "--seeds", "1", *options)
        assert outcome.code == 0, outcome.err
        assert "'Kick' and 'kick'" in outcome.out
        assert ("note: given split: " in outcome.out) == is_given
        assert "note: 2 folds: " not in outcome.out  # each has some of both
        assert "always the largest class" in outcome.out


def test_folders_that_differ_in_how_an_accent_is_written_are_one_class(dynaprop, workplace, data_root):
    """Made on two machines; each video is decoded where it lies."""
    apart = unicodedata.normalize("NFD", ACCENT)
    places = {
        f"train/{ACCENT}": ("hug", 3),
        "train/kick": ("kick", 3),
        f"test/{apart}": ("hug", 2),
        "test/kick": ("kick", 2),
    }
    folder(workplace, data_root, places)
    assert len({place.name for place in (workplace / "videos").glob("*/*")}) == 3
    outcome = dynaprop("run", "tiny", "--sweep", "few", "--seeds", "1")
    assert outcome.code == 0, outcome.err
    assert "features: 10 of 10 videos; this run decoded 10 videos" in lines(outcome.err)
    assert "note: " not in outcome.err + outcome.out
    (run,) = (workplace / "runs").iterdir()
    per_class = pd.read_parquet(run / "per_class.parquet")
    assert set(per_class["class_name"]) == {"kick", ACCENT}
    assert (per_class["n_videos"] == 2).all()
    videos = set(pd.read_parquet(run / "predictions.parquet")["video_id"])
    assert {video.rpartition("/")[0] for video in videos} == {f"test/{apart}", "test/kick"}


def test_groups_of_a_folder_are_kept_apart_by_every_command(dynaprop, workplace, data_root):
    """By takes of real videos: their file is found in the folder, in `run` as in `sweep`."""
    videos = folder(workplace, data_root, {"kick": ("kick", 8), "hug": ("hug", 8)})
    (workplace / "catalog.yaml").write_text((workplace / "catalog.yaml").read_text().replace("tiny:", "other:"))
    text = (workplace / "catalog.yaml").read_text().replace("root: videos", "root: elsewhere")
    (workplace / "catalog.yaml").write_text(text)
    names = sorted(path.relative_to(videos).as_posix() for path in videos.glob("*/*"))
    group_of = {name: f"take {number % 4}" for number, name in enumerate(names)}
    table = ["video;group", *(f"{name.replace('/', chr(92))};{group}" for name, group in group_of.items())]
    (videos / "groups.csv").write_text("\r\n".join([*table, "not\\here.avi;take 9"]) + "\r\n", encoding="utf-8-sig")
    outcome = dynaprop("run", "videos", "--sweep", "few", "--seeds", "1")
    assert outcome.code == 0, outcome.err
    expected = r"note: groups.csv: 4 groups of 16 videos; 1 of its rows fit no video here, 'not\\here.avi' first"
    assert expected in lines(outcome.err) and expected in lines(outcome.out)
    again = dynaprop("sweep", "videos", "--sweep", "few", "--seeds", "1", "--folds", "2")
    assert again.code == 0, again.err
    (run,) = (workplace / "runs").iterdir()
    predictions = pd.read_parquet(run / "predictions.parquet")
    sides = predictions.groupby(["split", "fold"], dropna=False)["video_id"].agg(lambda ids: {group_of[i] for i in ids})
    assert len(sides) == 3
    held = sides["stratified"].iloc[0]
    tested = set(predictions.loc[predictions["split"] == "stratified", "video_id"])
    assert tested == {name for name, group in group_of.items() if group in held} and 0 < len(held) < 4
    assert not set.intersection(*sides["2-fold"])

    (videos / "groups.csv").write_text("\n".join(table[:-2]))
    refused = dynaprop("sweep", "videos", "--sweep", "few")
    assert refused.code == 2
    assert f"groups.csv: has no group for 2 of 16 videos, '{names[-2]}' first" in refused.err
