"""Lists that many tools read wrongly: each is read right, or refused with file and line and what to write instead."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynaprop.pipeline.annotations import Annotations, read_annotations
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.video.decoders import read_frames
from dynaprop.pipeline.video.probe import probe_frame_folder
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.label_files import BOM, everything, facts, found, refused, touch, write
from tests.pipeline.videos import all_frames

CLASSES = {"classes": "classes.txt"}
FRAMES = {"frames": "img_{:05d}.jpg", "fps": 10.0}


def read(root: Path, form: str, train: str | bytes, test: str | bytes | None = None, **keys: Any) -> Annotations:
    """Read lists that lie beside the videos, of classes kick, punch and hug where none are given."""
    write(root, "train.txt", train)
    if test is not None:
        write(root, "test.txt", test)
    if form not in ("kinetics", "activitynet") and not (root / "classes.txt").exists():
        write(root, "classes.txt", "kick\npunch\nhug\n")
    classes = {} if form in ("kinetics", "activitynet") else {"classes": "classes.txt"}
    parts = {"train": "train.txt"} | ({} if test is None else {"test": "test.txt"})
    rate = {"fps": 10.0} if form.startswith("arnet") else {}
    spec = DatasetSpec(name="x", root=root, annotations={"format": form, **classes, **parts, **rate, **keys})
    return read_annotations(spec)


class TestClassList:
    @pytest.mark.parametrize(
        "text",
        [
            "kick\npunch\n",
            "0 kick\n1 punch\n",
            "0\tkick\n1\tpunch\n",
            "0,kick\n1,punch\n",
            "0, kick\n1, punch\n",
            "0;kick\n1;punch\n",
            "0: kick\n1: punch\n",
            "0. kick\n1. punch\n",
            "0:kick\n1:punch\n",
            "0|kick\n1|punch\n",
            "0 - kick\n1 - punch\n",
            "(0) kick\n(1) punch\n",
            "kick: 0\npunch: 1\n",
            ",label\n0,kick\n1,punch\n",
            "00 kick\n01 punch\n",
            "kick,0\npunch,1\n",
            "id,name\n0,kick\n1,punch\n",
            "ID\tClass\n0\tkick\n1\tpunch\n",
            "name,id\nkick,0\npunch,1\n",
            '"id","name"\n0,"kick"\n1,"punch"\n',
            '"kick"\n"punch"\n',
            "  kick  \npunch\t\n\n\n",
            BOM.decode() + "id,name\r\n0,kick\r\n1,punch\r\n",
            "id name\n0 kick\n1 punch",
        ],
    )
    @pytest.mark.parametrize("label", ["kick", "0"])
    def test_the_names_alone(self, tmp_path: Path, text: str, label: str) -> None:
        write(tmp_path, "classes.txt", text)
        annotations = read(touch(tmp_path, "a.mp4"), "list", f"a.mp4 {label}\n")
        assert annotations.class_names == ("kick", "punch")
        assert facts(annotations) == {"a.mp4": ("train", ["kick"])}

    def test_the_odd_one(self, tmp_path: Path, data_root: Path) -> None:
        shutil.copy(data_root / "odd-videos/kinetics-labels-with-header.csv", tmp_path / "classes.txt")
        annotations = read(
            tmp_path, "kinetics", "label,youtube_id,time_start,time_end\npunch,x,0,10\n", classes="classes.txt"
        )
        assert annotations.class_names == ("kick", "punch")
        assert everything(annotations)["x_000000_000010"].labels == (1,)

    @pytest.mark.parametrize(
        "names",
        [
            ["100 m run", "200 m run", "400 m run"],
            ["take 1", "take 2"],
            ["dancing, fast", "dancing, slow"],
            ["7 up", "kick"],
            ["0", "1"],
            ["3d printing", "4x4 driving"],
            ["class 0", "other"],
            ["2-handed", "1-handed"],
        ],
    )
    def test_numbers_and_commas_that_are_parts_of_names(self, tmp_path: Path, names: list[str]) -> None:
        write(tmp_path, "classes.txt", "\n".join(names))
        assert read(touch(tmp_path, "a.mp4"), "list", "a.mp4 0\n").class_names == tuple(names)

    @pytest.mark.parametrize(
        ("text", "line", "expected"),
        [
            (
                "1 kick\n2 punch\n",
                1,
                "the classes are numbered from 1; write the names alone, and number labels from 0",
            ),
            ("1,kick\n2,punch\n", 1, "the classes are numbered from 1"),
            ("id,name\n1,kick\n2,punch\n", 2, "the classes are numbered from 1"),
            ("kick,1\npunch,2\n", 1, "the classes are numbered from 1"),
            (
                "0,kick\n2,punch\n",
                2,
                "have the number 1, as classes are numbered by their lines from 0: '2,punch'",
            ),
            ("0 kick\n2 punch\n", 2, "should have the number 1"),
            ("1 kick\n0 punch\n", 1, "should have the number 0"),
            ("2 kick\n0 punch\n1 hug\n", 1, "should have the number 0"),
            ("kick 1\npunch 0\n", 1, "should have the number 0"),
            ("0,kick\n1,punch\nhug\n", 3, "has no number, as other lines have: 'hug'"),
            ("name\nkick\npunch\n", 1, "'name' is a header over names that have no numbers; delete the line"),
            ("Class\nkick\npunch\n", 1, "is a header"),
            ("no\nyes\n", 1, "where it is a class, number all lines: `0 no`"),
            ("# classes\nkick\n", 1, "a comment is no class; delete the line"),
            ("kick\n#punch\n", 2, "a comment is no class"),
            ("kick,\npunch,\n", 1, "ends in ','; write the name alone: 'kick,'"),
            ('["kick",\n"punch"]\n', 1, "is json; write the names of the classes, one a line"),
            ('{"kick": 0}\n', 1, "is json"),
            ("- kick\n- punch\n", 1, "write the name alone, without '-' before it"),
            ("1|kick\n2|punch\n", 1, "the classes are numbered from 1"),
            ("0,kick,3\n1,punch,4\n", 1, "should be number and name, a name with separators in quotes: '0,kick,3'"),
            ("0\tkick\tx\n1\tpunch\ty\n", 1, "should be number and name"),
            ("kick\tx\npunch\ty\n", 1, "should be one name, not several fields"),
            ('"kick\npunch\n', 1, "should be one name, in quotes or without"),
            ('"kick","punch"\n', 1, "should be one name"),
            ('"kick"\nkick\n', 2, "class 'kick' is already named at"),
        ],
    )
    def test_refused(self, tmp_path: Path, text: str, line: int, expected: str) -> None:
        write(tmp_path, "classes.txt", text)
        message = refused(read, touch(tmp_path, "a.mp4"), "list", "a.mp4 0\n")
        assert message.startswith(f"{tmp_path / 'classes.txt'}:{line}: ")
        assert expected in message

    @pytest.mark.parametrize("names", ["1_kick\n0_punch\n", "7-kick\n0-punch\n1-hug\n"])
    def test_a_number_that_stands_before_another_class(self, tmp_path: Path, names: str) -> None:
        write(tmp_path, "classes.txt", names)
        message = refused(read, touch(tmp_path, "a.mp4"), "list", "a.mp4 0\n")
        assert message.startswith(f"{tmp_path / 'train.txt'}:1: is 0 the class '0")
        assert "or the one in line 1 of" in message
        name = names.split()[0]
        assert facts(read(tmp_path, "list", f"a.mp4 {name}\n")) == {"a.mp4": ("train", [name])}

    @pytest.mark.parametrize(
        "names", ["001.kick\n002.punch\n003.hug", "3 jumps\n1 jump\n2 jumps", "1-kick\npunch\nhug"]
    )
    def test_numbers_before_names_that_mislead_nobody(self, tmp_path: Path, names: str) -> None:
        write(tmp_path, "classes.txt", names)
        annotations = read(touch(tmp_path, "a.mp4"), "list", "a.mp4 1\n")
        assert facts(annotations) == {"a.mp4": ("train", [names.splitlines()[1]])}

    def test_ucf101_with_tabs(self, tmp_path: Path) -> None:
        write(tmp_path, "classes.txt", "1\tkick\r\n2  punch\r\n")
        annotations = read(touch(tmp_path, "punch/a.avi"), "ucf101", "punch/a.avi\t2\r\n")
        assert facts(annotations) == {"punch/a.avi": ("train", ["punch"])}


class TestUnlabelled:
    """Nobody drops a training video without a word."""

    @pytest.mark.parametrize(
        ("form", "line", "video"),
        [
            ("list", "a/2.mp4", "a/2.mp4"),
            ("mmaction2", "a/2.mp4", "a/2.mp4"),
            ("arnet-activitynet", "a/2,30", "a/2"),
        ],
    )
    def test_in_training(self, tmp_path: Path, form: str, line: str, video: str) -> None:
        first = {"arnet-activitynet": "a/1,30,0"}.get(form, "a/1.mp4 0")
        message = refused(read, touch(tmp_path, "a/1.mp4", "a/2.mp4"), form, f"{first}\n{line}\n")
        assert message.startswith(f"{tmp_path / 'train.txt'}:2: {video!r} has no label, and is to be trained on")

    def test_frames_in_training(self, tmp_path: Path) -> None:
        message = refused(read, tmp_path, "mmaction2", "a/1 30 0\na/2 30\n", **FRAMES)
        assert message.startswith(f"{tmp_path / 'train.txt'}:2: 'a/2' has no label, and is to be trained on")

    @pytest.mark.parametrize("form", ["list", "mmaction2"])
    def test_all_or_none_in_other_parts(self, tmp_path: Path, form: str) -> None:
        touch(tmp_path, "1.mp4", "2.mp4", "3.mp4")
        assert read(tmp_path, form, "1.mp4 0\n", "2.mp4\n3.mp4\n").held_out_part is None
        assert read(tmp_path, form, "1.mp4 0\n", "2.mp4 0\n3.mp4 1\n").held_out_part == "test"
        message = refused(read, tmp_path, form, "1.mp4 0\n", "2.mp4 0\n3.mp4\n")
        assert message.startswith(f"{tmp_path / 'test.txt'}:2: '3.mp4' has no label, as others of the test part have")

    def test_activitynet(self, tmp_path: Path) -> None:
        text = '{"database": {\n"a": {"subset": "training", "annotations": []},\n"b": {"subset": "validation"}}}'
        write(tmp_path, "labels.json", text)
        spec = DatasetSpec(name="x", root=tmp_path, annotations={"format": "activitynet", "file": "labels.json"})
        message = refused(read_annotations, spec)
        assert message.startswith(
            f"{tmp_path / 'labels.json'}:2: video 'a': has no 'annotations', and is to be trained"
        )


class TestFields:
    @pytest.mark.parametrize(
        ("form", "line", "keys", "expected"),
        [
            ("list", "path label", {}, "should be `path label`, the path ending in"),
            ("list", "video,label", {}, "should be `path label`"),
            ("list", "a.mp4,0", {}, "should be `path label`"),
            ("list", '"a.mp4" 0', {}, "should be `path label`"),
            ("list", "a.mp4 0,", {}, "a label is empty; correct the separators of '0,'"),
            ("list", "a.mp4 0,,1", {}, "a label is empty"),
            ("list", "a.mp4 0.0", {}, "no class '0.0'"),
            ("mmaction2", "filename label", {}, "'filename' is no name of a video"),
            ("mmaction2", "a.mp4;", {"delimiter": ";"}, "a label is empty; correct the separators of 'a.mp4;'"),
            ("mmaction2", "a.mp4;1;", {"delimiter": ";"}, "a label is empty"),
            ("mmaction2", "a.mp4 0 #", {}, "no class '#'"),
            ("mmaction2", "folder frames label", FRAMES, "the number of frames should be a whole number, not 'frames'"),
            ("mmaction2", "a", FRAMES, "should be folder, number of frames and labels"),
            ("arnet-activitynet", "id,frames,label", {}, "should be a whole number, not 'frames'"),
            ("arnet-activitynet", "a,30,1,", {}, "a label is empty; correct the separators of 'a,30,1,'"),
            ("arnet-activitynet", "a,,1", {}, "should be a whole number, not ''"),
            ("arnet-activitynet", "a,30,0,1,2,0", {}, "should have 3 labels at most"),
            ("arnet-mini-kinetics", "folder frames label", {}, "should be a whole number, not 'frames'"),
            ("ucf101", "a/1.avi 1 2", {}, "no class '1 2'"),
        ],
    )  # fmt: skip
    def test_refused(self, tmp_path: Path, form: str, line: str, keys: dict[str, Any], expected: str) -> None:
        if form == "ucf101":
            write(tmp_path, "classes.txt", "1 kick\n2 punch\n")
        message = refused(read, touch(tmp_path, "a.mp4"), form, f"{line}\n", **keys)
        assert message.startswith(f"{tmp_path / 'train.txt'}:1: ")
        assert expected in message

    def test_kinetics(self, tmp_path: Path) -> None:
        header = "label,youtube_id,time_start,time_end,label\n"
        message = refused(read, tmp_path, "kinetics", header + "kick,a,0,10,punch\n")
        assert message.startswith(f"{tmp_path / 'train.txt'}:1: the header has label twice")
        twice = "label,youtube_id,time_start,time_end\n"
        message = refused(read, tmp_path, "kinetics", twice + "kick,a,0,10\n" + twice)
        assert message.startswith(f"{tmp_path / 'train.txt'}:3: time_start should be a whole number of seconds")
        message = refused(read, tmp_path, "kinetics", twice + "kick,a,0,10,\n")
        assert message.startswith(f"{tmp_path / 'train.txt'}:2: 5 fields under a header of 4")

    def test_hmdb51(self, tmp_path: Path) -> None:
        spec = DatasetSpec(name="x", root=tmp_path, annotations={"format": "hmdb51", "splits": "splits"})
        write(tmp_path, "splits/kick_test_split1.txt", BOM + b"a b.avi\t1\r\nc.avi  2 \r\n")
        assert facts(
            read_annotations(DatasetSpec(**spec.model_dump() | {"root": touch(tmp_path, "kick/a b.avi")}))
        ) == {"kick/a b.avi": ("train", ["kick"])}
        for line in ("a.avi 1 2", "video split", "1"):
            write(tmp_path, "splits/kick_test_split1.txt", f"c.avi 1\n{line}\n")
            message = refused(read_annotations, spec)
            assert message.startswith(f"{tmp_path / 'splits/kick_test_split1.txt'}:2: should be `video.avi 0`")

    @pytest.mark.parametrize("form", ["list", "mmaction2"])
    def test_numbers_from_1(self, tmp_path: Path, form: str) -> None:
        touch(tmp_path, "kick/1.mp4", "punch/2.mp4", "hug/3.mp4")
        assert len(read(tmp_path, form, "kick/1.mp4 0\npunch/2.mp4 1\nhug/3.mp4 2\n").videos) == 3
        message = refused(read, tmp_path, form, "kick/1.mp4 1\npunch/2.mp4 2\n")
        assert message.startswith(f"{tmp_path / 'train.txt'}:1: the label of 'kick/1.mp4' is 'punch', its folder is ")
        assert "numbers of classes begin at 0" in message
        # One that is called otherwise proves that folders are not the classes.
        assert len(read(tmp_path, form, "kick/1.mp4 1\npunch/2.mp4 2\nhug/3.mp4 2\n").videos) == 3

    @pytest.mark.parametrize("form", ["list", "mmaction2"])
    def test_a_number_of_frames_before_the_label_is_noticed(self, tmp_path: Path, form: str) -> None:
        touch(tmp_path, "1.mp4", "2.mp4")
        (note,) = read(tmp_path, form, "1.mp4 2 0\n2.mp4 1 0\n").notes
        assert note.startswith(f"{tmp_path / 'train.txt'}:1: every video has several labels, of which the first is")
        assert read(tmp_path, form, "1.mp4 2 0\n2.mp4 1\n").notes == ()


class TestPaths:
    FORMS: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("list", "{}/1.mp4 0", {}),
        ("mmaction2", "{}/1.mp4 0", {}),
        ("mmaction2", "{}/1 30 0", FRAMES),
        ("arnet-activitynet", "{}/1,30,0", {}),
        ("arnet-mini-kinetics", "{}/1 30 0", {}),
    )

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return touch(tmp_path / "real", "kick/1.mp4", "punch/2.mp4")

    @pytest.mark.parametrize(("form", "line", "keys"), FORMS)
    def test_absolute_inside_the_root(self, root: Path, form: str, line: str, keys: dict[str, Any]) -> None:
        relative = read(root, form, line.format("kick"), **keys)
        (root.parent / "link").symlink_to(root)
        for own in (root, root.parent / "link"):
            for listed in (root, root.parent / "link", f"{root.parent}//real/."):
                annotations = read(own, form, line.format(f"{listed}/kick"), **keys)
                assert facts(annotations) == facts(relative)
                assert annotations.videos[0].path == own / "kick/1.mp4"

    @pytest.mark.parametrize(("form", "line", "keys"), FORMS)
    @pytest.mark.parametrize(
        "folder",
        [
            "/elsewhere/kick",
            "C:\\videos\\kick",
            "D:/kick",
            "\\\\server\\share\\kick",
            "https://x.org/kick",
            "s3://b/k",
            "~/k",
        ],
    )
    def test_elsewhere(self, root: Path, form: str, line: str, keys: dict[str, Any], folder: str) -> None:
        message = refused(read, root, form, line.format(folder), **keys)
        assert message.startswith(f"{root / 'train.txt'}:1: ")
        assert f"does not lie inside {root}, the dataset's root: correct one of them, or write paths" in message

    def test_beside_the_root_with_its_name_as_a_prefix(self, root: Path) -> None:
        touch(root.parent, "real2/kick/1.mp4")
        assert "does not lie inside" in refused(read, root, "list", f"{root}2/kick/1.mp4 0")
        assert "does not lie inside" in refused(read, root, "list", f"{root}/../real/kick/1.mp4 0")

    @pytest.mark.parametrize(("form", "line", "keys"), FORMS)
    def test_backslashes(self, root: Path, form: str, line: str, keys: dict[str, Any]) -> None:
        windows = read(root, form, line.format("kick").replace("/", "\\"), **keys)
        assert facts(windows) == facts(read(root, form, line.format("kick"), **keys))
        assert [video.path for video in windows.videos] == [root / "kick/1.mp4"]
        assert "does not lie inside" in refused(read, root, form, line.format("..\\kick").replace("/", "\\"), **keys)

    def test_a_file_of_that_very_name(self, root: Path) -> None:
        touch(root, "AC\\DC.mp4")
        assert list(facts(read(root, "list", "AC\\DC.mp4 0\n"))) == ["AC\\DC.mp4"]

    def test_ucf101(self, root: Path) -> None:
        write(root, "classes.txt", "1 kick\n2 punch\n")
        annotations = read(root, "ucf101", "kick\\1.avi 1\n", f"{root}/punch/2.avi\n")
        assert facts(annotations) == {"kick/1.avi": ("train", ["kick"]), "punch/2.avi": ("test", ["punch"])}


@pytest.fixture(scope="module")
def pictures(data_root: Path) -> list[np.ndarray]:
    """The first frames of a real video."""
    return all_frames(sorted((data_root / "weizmann").rglob("*.avi"))[0])[:30]


class TestOffsets:
    def folder(self, root: Path, pictures: list[np.ndarray], first: int) -> Path:
        for number, picture in enumerate(pictures, start=first):
            path = root / "kick/x" / f"img_{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        return root

    def test_the_odd_list_is_refused_or_read_as_the_catalog_says(
        self, tmp_path: Path, data_root: Path, pictures: list[np.ndarray]
    ) -> None:
        """`kick/x 4 10 3`: with the start of 1 the pictures 5 to 14, as mmaction2 adds the offset to its numbers."""
        text = (data_root / "odd-videos/mmaction2-with-offset.txt").read_text()
        write(tmp_path, "classes.txt", "\n".join("abcdefghijklm"))  # else 10 would be no class
        self.folder(tmp_path, pictures, first=1)
        keys: dict[str, Any] = {"frames": "img_{:05d}.png", "fps": 10.0}
        message = refused(read, tmp_path, "mmaction2", text, **keys)
        assert message.startswith(f"{tmp_path / 'train.txt'}:1: is the second field an offset (`folder offset total_")
        assert "say `offset: true` in the dataset's entry, or `offset: false`" in message
        (video,) = read(tmp_path, "mmaction2", text, offset=False, **keys).videos
        assert (video.labels, video.frames and video.frames.n_frames) == ((10, 3), 4)
        (video,) = read(tmp_path, "mmaction2", text, offset=True, **keys).videos
        assert (video.id, video.labels, video.path) == ("kick/x@4", (3,), tmp_path / "kick/x")
        probe = probe_frame_folder(video.path, video.frames)
        assert (probe.n_frames, probe.share, probe.duration) == (10, 1.0, 1.0)
        grid = clip_grid(probe.timestamps, probe.duration, min_clips=10)
        wanted = FrameRequest(str(video.path), grid.frames, grid.timestamps, 0.0, True, video.frames)
        shown = [frame for _, frame in read_frames(wanted, "frames")]
        np.testing.assert_array_equal(shown, pictures[4:14])
        message = refused(read, tmp_path, "mmaction2", text, offset=True, first=0, **keys)
        assert "if pictures are numbered from 1, say `first: 1`" in message
        self.folder(tmp_path, pictures, first=0)
        (video,) = read(tmp_path, "mmaction2", text, offset=True, first=0, **keys).videos
        assert video.frames is not None and video.frames.name(video.frames.first) == "img_00004.png"

    def test_parts_of_one_folder(self, tmp_path: Path, pictures: list[np.ndarray]) -> None:
        self.folder(tmp_path, pictures, first=1)
        touch(tmp_path, "y.mp4")
        lines = "kick/x 0 10 0\nkick/x 10 10 1\nkick/x 20 10 2\ny 5 10 0\n"
        keys: dict[str, Any] = {"frames": "img_{:05d}.png", "fps": 10.0, "offset": True}
        annotations = read(tmp_path, "mmaction2", lines, **keys)
        assert found(annotations, tmp_path) == dict.fromkeys(["kick/x@0", "kick/x@10", "kick/x@20"], "kick/x")
        assert {video.group for video in annotations.videos} == {"kick/x"}  # never on both sides of a split
        assert annotations.missing == ("y@5",)  # an offset counts pictures: a file is no part
        message = refused(read, tmp_path, "mmaction2", lines + "kick/x 10 4 0\n", **keys)
        assert message.startswith(f"{tmp_path / 'train.txt'}:5: 'kick/x@10' is already listed at ")

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("kick/x 10 0", "'kick/x@10'|a video of 0 frames"),
            ("kick/x 10", "should be folder, offset, number of frames and labels"),
            ("kick/x -1 10 0", "the offset should be a whole number, not '-1'"),
            ("kick/x 1 ten 0", "the number of frames should be a whole number, not 'ten'"),
            ("kick/x 1 10", "has no label, and is to be trained on"),
        ],
    )
    def test_refused_with_offsets(self, tmp_path: Path, line: str, expected: str) -> None:
        message = refused(read, tmp_path, "mmaction2", f"kick/y 0 9 0\n{line}\n", offset=True, **FRAMES)
        assert message.startswith(f"{tmp_path / 'train.txt'}:2: ")
        assert expected.split("|")[-1] in message

    def test_what_cannot_be_an_offset_is_read(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/img_00001.jpg", "b/img_00001.jpg")
        assert facts(read(tmp_path, "mmaction2", "a 9 1 2\nb 9 1\n", **FRAMES))["a"] == ("train", ["punch", "hug"])
        assert facts(read(tmp_path, "mmaction2", "a 9 0 2\nb 9 1 2\n", **FRAMES))["a"] == ("train", ["kick", "hug"])
        message = refused(read, tmp_path, "mmaction2", "a 0 9 2\nb 0 9\n", **FRAMES)
        assert "a video of 0 frames" in message and "its entry needs `offset: true`" in message

    def test_an_offset_in_some_lines_alone(self, tmp_path: Path) -> None:
        """A line lacks its label: so many fields do not tell, but the folder holds more than 4 pictures."""
        write(tmp_path, "classes.txt", "\n".join("abcdefghijklm"))
        touch(tmp_path, *(f"{name}/img_{number:05d}.jpg" for name in "xy" for number in range(1, 20)))
        message = refused(read, tmp_path, "mmaction2", "x 4 10 3\ny 3 9\n", **FRAMES)
        assert message.startswith(
            f"{tmp_path / 'train.txt'}:1: {tmp_path / 'x'} holds more pictures than this line says"
        )
        assert len(read(tmp_path, "mmaction2", "x 4 10 3\ny 3 9\n", offset=False, **FRAMES).videos) == 2
        assert len(read(tmp_path, "mmaction2", "x 19 10 3\ny 3 9\n", **FRAMES).videos) == 2

    def test_mini_kinetics(self, tmp_path: Path) -> None:
        touch(tmp_path, "kick/x/00001.jpg", "kick 2/00001.jpg")
        assert list(everything(read(tmp_path, "arnet-mini-kinetics", "kick 2 10 0\n"))) == ["kick 2"]
        message = refused(read, tmp_path, "arnet-mini-kinetics", "kick 2 10 0\nkick/x 4 10 0\n")
        assert message.startswith(
            f"{tmp_path / 'train.txt'}:2: there is no folder 'kick/x 4', but one 'kick/x': is 4 an"
        )
        assert "format mmaction2 with `offset: true`" in message

    def test_offset_is_about_frames(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="'offset' are about folders of frames"):
            read(tmp_path, "mmaction2", "a.mp4 0\n", offset=True)


class TestFirst:
    def write(self, root: Path, numbers: range) -> Path:
        return touch(root, *(f"{name}/img_{number:05d}.jpg" for name in ("a", "b") for number in numbers))

    @pytest.mark.parametrize(
        ("form", "lines"), [("mmaction2", "a 9 0\nb 9 1\n"), ("arnet-activitynet", "a,9,0\nb,9,1\n")]
    )
    @pytest.mark.parametrize(("numbers", "first"), [(range(9), 1), (range(1, 10), 0)])
    def test_numbered_from_another_number(
        self, tmp_path: Path, form: str, lines: str, numbers: range, first: int
    ) -> None:
        keys = FRAMES | {"first": first}
        message = refused(read, self.write(tmp_path, numbers), form, lines, **keys)
        assert message.startswith(f"{tmp_path / 'train.txt'}:1: {tmp_path / 'a'} ")
        assert message.endswith(f"say `first: {1 - first}` in the dataset's entry")
        assert read(tmp_path, form, lines, **FRAMES | {"first": 1 - first}).notes == ()

    def test_one_more_than_announced(self, tmp_path: Path) -> None:
        (note,) = read(self.write(tmp_path, range(10)), "mmaction2", "a 9 0\nb 9 1\n", **FRAMES).notes
        assert note.startswith(f"'{tmp_path / 'a'}' has img_00000.jpg, too, which does not count by `first: 1`")

    def test_one_odd_folder_is_left_to_the_probe(self, tmp_path: Path) -> None:
        self.write(tmp_path, range(1, 10))
        touch(tmp_path, "c/img_00000.jpg")
        assert len(read(tmp_path, "mmaction2", "a 9 0\nb 9 1\nc 9 1\n", **FRAMES).videos) == 3


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize(
    ("form", "lines", "keys"),
    [
        ("list", ["kick/1.mp4 kick", "punch/2.mp4\t1  "], {}),
        ("mmaction2", ["kick/1.mp4 0", "punch/2.mp4\t 1\t"], {}),
        ("mmaction2", ["kick/1 30 0", "punch/2\t30\t1 "], FRAMES),
        ("arnet-activitynet", ["kick/1,30,0", " punch/2 , 30 , 1 "], {}),
        ("arnet-mini-kinetics", ["kick/1 30 0", "punch/2\t30\t1 "], {}),
    ],
)
def test_files_of_other_systems(
    tmp_path: Path, form: str, lines: list[str], keys: dict[str, Any], bom: bytes, ending: str
) -> None:
    write(tmp_path, "classes.txt", bom + ending.join(["kick", "punch  ", ""]).encode())
    text = ending.join([*lines, "", ""]).encode()
    annotations = read(touch(tmp_path, "kick/1.mp4", "punch/2.mp4"), form, bom + text, **keys)
    assert sorted(labels for _, (_, labels) in facts(annotations).items()) == [["kick"], ["punch"]]
