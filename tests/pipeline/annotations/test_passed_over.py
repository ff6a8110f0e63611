"""Folders of systems, leftovers of downloads and look-alikes: no videos, no classes, and files counted in a line."""

from pathlib import Path
from typing import Any

import pytest

from dynaprop.pipeline.annotations import Annotations, read_annotations
from dynaprop.pipeline.annotations.folder import read_folder
from dynaprop.pipeline.annotations.passed_over import VIDEO_SUFFIXES
from dynaprop.pipeline.annotations.video_files import passed_over, video_files
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from tests.pipeline.label_files import facts, found, refused, touch, write

KNOWN = f"(known extensions: {' '.join(VIDEO_SUFFIXES)})"
SYSTEM = [
    *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "@__thumb", "@tmp"),
    *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "Recycled", "System Volume Information", "FOUND.000"),
    *(".AppleDouble", "__MACOSX", ".Trashes", ".Trash-1000", ".fseventsd", ".Spotlight-V100", "Network Trash Folder"),
    *("lost+found", "LOST.DIR", "~snapshot", ".snapshot", ".thumbnails", ".@__thumb", "clip.mp4.download"),
]


@pytest.mark.parametrize("name", SYSTEM)
@pytest.mark.parametrize("above", ["", "train/", "run/"])
def test_folders_of_the_system_hold_no_videos(tmp_path: Path, name: str, above: str) -> None:
    videos = ["train/run/1.mp4", "test/run/2.mp4"] if above == "train/" else ["run/1.mp4", "jump/2.mp4"]
    touch(tmp_path, *videos, f"{above}{name}/1.mp4", f"{above}{name}/deep/3.mp4", f"{above}{name}/4.gif")
    annotations = read_folder(root=tmp_path)
    assert sorted(facts(annotations)) == sorted(videos)
    assert set(annotations.class_names) <= {"run", "jump"}
    assert annotations.notes == ()
    write(tmp_path, "list.csv", "label,youtube_id,time_start,time_end\nrun,a,0,1\n")
    touch(tmp_path, f"{name}/a_000000_000001.mp4")
    form = {"format": "kinetics", "train": "list.csv"}
    assert read_annotations(DatasetSpec(name="x", root=tmp_path, annotations=form)).missing == ("a_000000_000001",)


@pytest.mark.parametrize("name", ["recycler", "recycled", "lost", "found", "snapshot", "tmp", "download", "eaDir"])
def test_classes_that_are_called_alike(tmp_path: Path, name: str) -> None:
    assert read_folder(root=touch(tmp_path, f"{name}/1.mp4", "run/2.mp4")).class_names == tuple(sorted((name, "run")))


LEFTOVERS = [
    *("x.mp4.part", "x.mp4.crdownload", "x.mkv.download", "x.mp4.!qB", "x.avi.!ut", "x.mp4.aria2", "x.webm.ytdl"),
    *("x.mp4.opdownload", "x.MP4.partial"),
]
STREAMS = [
    ("x.f137.mp4", "x.f140.m4a"),
    ("x.f248.webm", "x.f251.webm.part"),
    ("x.f399-1.mp4", "x.f140.m4a"),
    ("x.temp.mp4", "x.f140.m4a"),
    ("x.f137.mp4", "x.mp4"),
]


@pytest.mark.parametrize("name", LEFTOVERS)
def test_leftovers_of_downloads(tmp_path: Path, name: str) -> None:
    annotations = read_folder(root=touch(tmp_path, "run/1.mp4", f"run/{name}", f"stopped/{name}"))
    assert facts(annotations) == {"run/1.mp4": (None, ["run"])}
    assert annotations.notes == (
        f"2 files are passed over: 2 unfinished downloads {KNOWN}",
        "no class, as no video lies in it: 'stopped'",
    )


@pytest.mark.parametrize(("name", "beside"), STREAMS)
def test_a_stream_is_one_by_what_lies_beside_it(tmp_path: Path, name: str, beside: str) -> None:
    touch(tmp_path, "run/1.mp4", f"run/{name}", f"run/{beside}")
    wanted = ["run/1.mp4", *([f"run/{beside}"] if beside == "x.mp4" else [])]
    assert list(facts(read_folder(root=tmp_path))) == wanted
    (tmp_path / "run" / beside).unlink()
    assert list(facts(read_folder(root=tmp_path))) == ["run/1.mp4", f"run/{name}"]


def test_a_file_that_is_marked_as_unfinished_by_another_one(tmp_path: Path) -> None:
    touch(tmp_path, "run/1.mp4", "run/2.mp4", "run/2.mp4.aria2", "run/3.mp4", "run/3.mp4.ytdl")
    assert list(facts(read_folder(root=tmp_path))) == ["run/1.mp4"]
    (tmp_path / "run/2.mp4.aria2").unlink()
    assert list(facts(read_folder(root=tmp_path))) == ["run/1.mp4", "run/2.mp4"]


@pytest.mark.parametrize(
    "name",
    ["f137.mp4", "x.f137.mp4", "x.f12.avi", "x.f1.mp4", "x.fast.mp4", "xf137.mp4", "temp.mp4", "x.temperature.mp4"],
)
def test_videos_that_are_called_alike(tmp_path: Path, name: str) -> None:
    annotations = read_folder(root=touch(tmp_path, f"run/{name}"))
    assert (list(facts(annotations)), annotations.notes) == ([f"run/{name}"], ())


class TestLookAlikes:
    def test_one_line(self, tmp_path: Path) -> None:
        touch(
            tmp_path, *(f"run/{number}.gif" for number in range(9)), "run/a.VOB", "run/b.vob", "jump/c.vob", "run/1.mp4"
        )
        touch(
            tmp_path, "run/._1.mp4", "run/Thumbs.db", "run/notes.txt", "run/1.srt", "run/1.jpg", "run/1.m4a", "run/gif"
        )
        annotations = read_folder(root=tmp_path)
        assert annotations.notes == (
            f"12 files are passed over: 9 .gif, 3 .vob {KNOWN}",
            "no class, as no video lies in it: 'jump'",
        )
        assert passed_over(tmp_path, has_frames=False) == annotations.notes[0]
        assert video_files(tmp_path) == ["run/1.mp4"]

    @pytest.mark.parametrize(
        "ending", ["gif", "vob", "mxf", "rm", "rmvb", "asf", "m2v", "divx", "f4v", "3g2", "y4m", "MXF"]
    )
    def test_nothing_else(self, tmp_path: Path, ending: str) -> None:
        message = refused(read_folder, root=touch(tmp_path, f"run/1.{ending}"))
        assert message == f"{tmp_path}: no videos here; 1 file is passed over: 1 .{ending.lower()} {KNOWN}"

    def test_in_lists(self, tmp_path: Path) -> None:
        touch(tmp_path, "run/1.avi", "run/2.vob", "run/3.gif", "frames/img_00001.jpg", "frames/4.gif")
        write(tmp_path, "classes.txt", "run\njump\n")
        write(tmp_path, "train.txt", "run/1.avi 0\nrun/2.avi 0\n")
        annotations = mmaction2(tmp_path)
        assert (found(annotations, tmp_path), annotations.missing) == ({"run/1.avi": "run/1.avi"}, ("run/2.avi",))
        assert annotations.notes == (f"3 files are passed over: 2 .gif, 1 .vob {KNOWN}",)
        write(tmp_path, "train.txt", "frames 1 0\n")
        annotations = mmaction2(tmp_path, frames="img_{:05d}.jpg", fps=10.0)
        assert annotations.notes == (f"2 files are passed over: 1 .gif, 1 .vob {KNOWN}",)
        assert passed_over(tmp_path, has_frames=True) == annotations.notes[0]

    def test_what_is_listed_by_its_very_name_is_meant(self, tmp_path: Path) -> None:
        touch(tmp_path, "run/1.f137.mp4", "run/1.f140.m4a", "run/2.f137.mp4", "run/2.f140.m4a")
        write(tmp_path, "classes.txt", "run\njump\n")
        write(tmp_path, "train.txt", "run/1.f137.mp4 0\n")
        annotations = mmaction2(tmp_path)
        assert found(annotations, tmp_path) == {"run/1.f137.mp4": "run/1.f137.mp4"}
        assert annotations.notes == (f"1 file is passed over: 1 unfinished download {KNOWN}",)

    def test_links(self, tmp_path: Path) -> None:
        """What is no video may lead anywhere."""
        touch(tmp_path, "root/run/1.mp4", "outside/2.gif")
        (tmp_path / "root/run/2.gif").symlink_to(tmp_path / "outside/2.gif")
        assert read_folder(root=tmp_path / "root").notes == (f"1 file is passed over: 1 .gif {KNOWN}",)


def test_training_videos_beside_the_classes_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/1.mp4", "train/jump/2.mp4", "train/3.mp4", "test/run/4.mp4", "test/5.mp4")
    assert read_folder(root=tmp_path).notes == (
        "1 training video lies in no class folder, so nothing is trained on 'train/3.mp4'",
    )
    assert read_folder(root=touch(tmp_path / "flat", "1.mp4", "2.mp4")).notes == ()


def mmaction2(root: Path, **keys: Any) -> Annotations:
    form = {"format": "mmaction2", "classes": "classes.txt", "train": "train.txt"} | keys
    return read_annotations(DatasetSpec(name="x", root=root, annotations=form))
