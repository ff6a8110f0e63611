"""Lists that name classes by number, of folders of frames (AR-Net) and of videos (mmaction2)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynaprop.pipeline.annotations import Annotations, read_annotations
from dynaprop.pipeline.annotations.frame_list import read_arnet_activitynet, read_arnet_mini_kinetics
from dynaprop.pipeline.annotations.mmaction2 import read_mmaction2
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.video.frame_folder import FrameFolder
from tests.pipeline.label_files import BOM, everything, facts, found, refused, touch, write


def lists(
    root: Path, reader: Callable[..., Annotations], train: str | bytes, val: str = "", **keys: Any
) -> Annotations:
    """Read lists of a format that names classes by number, of which there are three."""
    if not (root / "classes.txt").exists():
        write(root, "classes.txt", "run\nlong jump\nzumba\n")
    write(root, "train.txt", train)
    if val:
        keys["val"] = Path("val.txt")
        write(root, "val.txt", val)
    return reader(root=root, classes=Path("classes.txt"), train=Path("train.txt"), **keys)


def arnet_activitynet(root: Path, train: str | bytes, val: str = "") -> Annotations:
    return lists(root, read_arnet_activitynet, train, val, fps=25.0, frames="image_{:05d}.jpg", first=1)


def arnet_mini_kinetics(root: Path, train: str | bytes, val: str = "") -> Annotations:
    return lists(root, read_arnet_mini_kinetics, train, val, fps=30.0, frames="{:05d}.jpg", first=1)


class TestFrameLists:
    def test_arnet_activitynet(self, tmp_path: Path) -> None:
        touch(tmp_path, "frames/v_a b/image_00001.jpg", "frames/v_-c/image_00001.jpg")
        annotations = arnet_activitynet(tmp_path, "v_a b,120,2\nv_-c,7,1,0,1\n", "v_gone,3,0\n")
        assert facts(annotations) == {"v_a b": ("train", ["zumba"]), "v_-c": ("train", ["long jump", "run"])}
        assert found(annotations, tmp_path) == {"v_a b": "frames/v_a b", "v_-c": "frames/v_-c"}
        folder = FrameFolder(template="image_{:05d}.jpg", first=1, fps=25.0, n_frames=120)
        assert everything(annotations)["v_a b"].frames == folder
        assert [(video.id, video.split) for video in annotations.absent] == [("v_gone", "val")]

    def test_arnet_mini_kinetics(self, tmp_path: Path) -> None:
        touch(tmp_path, "images/train/long jump/x_000001_000011/00001.jpg")
        annotations = arnet_mini_kinetics(tmp_path, "images/train/long jump/x_000001_000011 250 1\n")
        (video,) = annotations.videos
        assert video.id == "images/train/long jump/x_000001_000011"
        assert video.path == tmp_path / video.id
        assert video.labels == (1,)
        assert video.frames == FrameFolder(template="{:05d}.jpg", first=1, fps=30.0, n_frames=250)

    @pytest.mark.parametrize(
        "place",
        [
            "images/train/run/x",  # as listed
            "kinetics/images/train/run/x",  # further down
            "run/x",  # less far down
            "x",
            "train/x",  # flat parts, as in the official download
            "videos/x",
        ],
    )
    @pytest.mark.parametrize("as_file", [False, True])
    def test_where_the_root_is_cut_otherwise(self, tmp_path: Path, place: str, as_file: bool) -> None:
        touch(tmp_path, f"{place}.mkv" if as_file else f"{place}/00001.jpg")
        (video,) = arnet_mini_kinetics(tmp_path, "images/train/run/x 9 0\nimages/train/zumba/y 9 2\n").videos
        assert video.path == tmp_path / (f"{place}.mkv" if as_file else place)
        assert (video.frames is None) == as_file

    @pytest.mark.parametrize("place", ["zumba/x", "frames/zumba/x", "zumba/day 1/x"])
    def test_folder_of_another_class_is_another_video(self, tmp_path: Path, place: str) -> None:
        touch(tmp_path, f"{place}/00001.jpg")
        assert arnet_mini_kinetics(tmp_path, "run/x 9 0\nzumba/y 9 2\n").missing == ("run/x", "zumba/y")

    def test_names_that_repeat_between_classes(self, tmp_path: Path) -> None:
        touch(tmp_path, "run/1/00001.jpg", "zumba/1.mp4", "other/2/00001.jpg")
        annotations = arnet_mini_kinetics(tmp_path, "run/1 9 0\nzumba/1 9 2\nrun/2 9 0\nzumba/2 9 2\n")
        assert found(annotations, tmp_path) == {"run/1": "run/1", "zumba/1": "zumba/1.mp4"}

    def test_class_called_like_a_video(self, tmp_path: Path) -> None:
        touch(tmp_path, "frames/run/run/00001.jpg", "frames/run/x/00001.jpg")
        annotations = arnet_mini_kinetics(tmp_path, "run/run 9 0\nrun/x 9 0\n")
        # Whether frames/run is the class or the video cannot be known: what is sure is found.
        assert found(annotations, tmp_path) == {"run/x": "frames/run/x"}
        annotations = arnet_mini_kinetics(tmp_path / "frames", "run/run 9 0\nrun/x 9 0\n")
        assert found(annotations, tmp_path / "frames") == {"run/run": "run/run", "run/x": "run/x"}

    def test_folder_goes_before_file(self, tmp_path: Path) -> None:
        touch(tmp_path, "videos/v_a.mp4", "frames/v_a/image_00001.jpg")
        assert found(arnet_activitynet(tmp_path, "v_a,3,0\n"), tmp_path) == {"v_a": "frames/v_a"}

    def test_other_folders_of_frames_are_not_looked_into(self, tmp_path: Path) -> None:
        touch(tmp_path, "image_00001.jpg", "more/image_00001.jpg", "more/v_a.mp4", "more/below/v_a.mp4", "x/v_a.mp4")
        assert found(arnet_activitynet(tmp_path, "v_a,3,0\n"), tmp_path) == {"v_a": "x/v_a.mp4"}

    def test_two_folders(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/v_a/image_00001.jpg", "val/v_a/image_00001.jpg")
        message = refused(arnet_activitynet, tmp_path, "v_b,3,0\nv_a,3,0\n")
        assert message.startswith(f"{tmp_path / 'train.txt'}:2: 'v_a' has two folders below {tmp_path}, ")
        assert "'train/v_a'" in message and "'val/v_a'" in message

    def test_windows_file(self, tmp_path: Path) -> None:
        write(tmp_path, "classes.txt", BOM + b"run\r\nzumba\r\n")
        annotations = arnet_mini_kinetics(tmp_path, BOM + b"run/x y 9 0\r\n\r\nzumba/\xc3\xa9 9 1\r\n")
        assert {video.id: video.labels for video in annotations.absent} == {"run/x y": (0,), "zumba/é": (1,)}

    @pytest.mark.parametrize(
        ("reader", "line", "expected"),
        [
            (arnet_activitynet, "v_a,ten,1", "the number of frames should be a whole number, not 'ten'"),
            (arnet_activitynet, "v_a,0,1", "a video of 0 frames"),
            (arnet_activitynet, "v_a,-1,1", "the number of frames should be a whole number, not '-1'"),
            (arnet_activitynet, "v_a", "should be folder, number of frames and labels: 'v_a'"),
            (arnet_activitynet, "v_a,9,3", "label 3 is outside "),
            (arnet_activitynet, "v_a,9,-1", "no class '-1'"),
            (arnet_activitynet, "v_first,9,1", "'v_first' is already listed at "),
            (arnet_activitynet, "/data/v_a,9,1", "'/data/v_a' does not lie inside "),
            (arnet_activitynet, "../v_a,9,1", "'../v_a' does not lie inside "),
            (arnet_activitynet, ",9,1", "'' does not lie inside "),
            (arnet_activitynet, "v_a 9 1", "should be folder, number of frames and labels: 'v_a 9 1'"),
            (arnet_mini_kinetics, "run/x,9,1", "should be folder, number of frames and labels: 'run/x,9,1'"),
            (arnet_mini_kinetics, "run/x 9.5 1", "should be a whole number, not '9.5'"),
            (arnet_mini_kinetics, "run/x 9 200", "label 200 is outside "),
            (arnet_mini_kinetics, "run/../x 9 1", "does not lie inside "),
        ],
    )
    def test_wrong_line(self, tmp_path: Path, reader: Callable[..., Annotations], line: str, expected: str) -> None:
        first = "v_first,9,0" if reader is arnet_activitynet else "v_first 9 0"
        message = refused(reader, tmp_path, f"{first}\n{line}\n")
        assert message.startswith(f"{tmp_path / 'train.txt'}:2: ")
        assert expected in message

    def test_listed_in_two_parts(self, tmp_path: Path) -> None:
        message = refused(arnet_activitynet, tmp_path, "v_a,9,0\n", "v_b,9,0\nv_a,9,0\n")
        assert message.startswith(f"{tmp_path / 'val.txt'}:2: 'v_a' is already listed at {tmp_path / 'train.txt'}:1;")

    def test_empty_list(self, tmp_path: Path) -> None:
        message = refused(arnet_activitynet, tmp_path, "v_a,9,0\n", "\n \n")
        assert message.startswith(f"{tmp_path / 'val.txt'}: no videos are listed")

    def test_defaults_are_the_readers(self, tmp_path: Path) -> None:
        touch(tmp_path, "v_a/image_00001.jpg")
        arnet_activitynet(tmp_path, "v_a,3,0\n")
        form = {"format": "arnet-activitynet", "classes": "classes.txt", "train": "train.txt", "fps": 30}
        (video,) = read_annotations(DatasetSpec(name="x", root=tmp_path, annotations=form)).videos
        assert video.frames == FrameFolder(template="image_{:05d}.jpg", first=1, fps=30.0, n_frames=3)


def mmaction2(root: Path, train: str | bytes, **keys: Any) -> Annotations:
    return lists(root, read_mmaction2, train, **keys)


class TestMmaction2:
    def test_videos(self, tmp_path: Path) -> None:
        touch(tmp_path, "run/a.mp4", "train/zumba/b.webm")
        annotations = mmaction2(tmp_path, "run/a.mp4 0\nzumba/b.mp4 2 1 2\nrun/gone.mp4 0\n")
        assert facts(annotations) == {"run/a.mp4": ("train", ["run"]), "zumba/b.mp4": ("train", ["zumba", "long jump"])}
        assert found(annotations, tmp_path)["zumba/b.mp4"] == "train/zumba/b.webm"
        assert annotations.missing == ("run/gone.mp4",)

    def test_delimiter(self, tmp_path: Path) -> None:
        touch(tmp_path, "long jump/a b.mp4")
        annotations = mmaction2(tmp_path, "long jump/a b.mp4;1;0\n", delimiter=";")
        assert facts(annotations) == {"long jump/a b.mp4": ("train", ["long jump", "run"])}

    def test_frames(self, tmp_path: Path) -> None:
        touch(tmp_path, "run/a/img_00000.jpg")
        annotations = mmaction2(tmp_path, "run/a 34 0 2\n", frames="img_{:05d}.jpg", first=0, fps=15.0)
        (video,) = annotations.videos
        assert video.labels == (0, 2)
        assert video.frames == FrameFolder(template="img_{:05d}.jpg", first=0, fps=15.0, n_frames=34)

    def test_one_name_with_two_extensions(self, tmp_path: Path) -> None:
        annotations = mmaction2(touch(tmp_path, "a/x.mp4", "a/x.avi"), "a/x.mp4 0\na/x.avi 1\n")
        assert found(annotations, tmp_path) == {"a/x.avi": "a/x.avi", "a/x.mp4": "a/x.mp4"}
        (tmp_path / "a/x.avi").unlink()
        annotations = mmaction2(tmp_path, "a/x.mp4 0\na/x.avi 1\n")
        assert (found(annotations, tmp_path), annotations.missing) == ({"a/x.mp4": "a/x.mp4"}, ("a/x.avi",))
        message = refused(mmaction2, touch(tmp_path, "a/y.mkv"), "a/y.mp4 0\na/y.avi 1\n")
        assert message.startswith(f"{tmp_path / 'train.txt'}:2: {tmp_path / 'a/y.mkv'} would be both ")

    def test_listed_file_goes_before_its_namesake(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/x.mp4", "a/x.mkv")
        assert found(mmaction2(tmp_path, "a/x.mp4 0\n"), tmp_path) == {"a/x.mp4": "a/x.mp4"}
        message = refused(mmaction2, tmp_path, "a/x.webm 0\n")
        assert "'a/x.webm' has two files below" in message

    @pytest.mark.parametrize(
        ("line", "keys", "expected"),
        [
            ("long jump/a.mp4 1", {}, "'long' is no name of a video; give the key 'delimiter' where"),
            ("run/a 30 1", {}, "'run/a' is no name of a video; give the key 'delimiter' where"),
            ("a.mp4 3", {}, "label 3 is outside "),
            ("a.mp4 zumbaa", {}, "no class 'zumbaa' in "),
            ("a.mp4 1", {"delimiter": ","}, "'a.mp4 1' is no name of a video"),
            ("/a.mp4 1", {}, "'/a.mp4' does not lie inside "),
            ("../a.mp4 1", {}, "'../a.mp4' does not lie inside "),
            ("run/a 1", {"frames": "img_{:05d}.jpg", "fps": 30.0, "delimiter": ","}, "should be folder, number of"),
            ("run/a x 1", {"frames": "img_{:05d}.jpg", "fps": 30.0}, "should be a whole number, not 'x'"),
        ],
    )
    def test_wrong_line(self, tmp_path: Path, line: str, keys: dict[str, Any], expected: str) -> None:
        message = refused(mmaction2, tmp_path, f"{line}\n", **keys)
        assert message.startswith(f"{tmp_path / 'train.txt'}:1: ")
        assert expected in message
