"""The split files of UCF101 and HMDB51."""

from pathlib import Path

import pytest

from dynaprop.pipeline.annotations import Annotations, read_annotations
from dynaprop.pipeline.annotations.hmdb51 import read_hmdb51
from dynaprop.pipeline.annotations.ucf101 import read_ucf101
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from tests.pipeline.label_files import BOM, everything, facts, refused, touch, write


def ucf101(
    root: Path, train: str | bytes, test: str = "", classes: str = "1 Archery\n2 ApplyEyeMakeup\n"
) -> Annotations:
    write(root, "classInd.txt", classes)
    write(root, "trainlist01.txt", train)
    if test:
        write(root, "testlist01.txt", test)
    parts = {"train": Path("trainlist01.txt")} | ({"test": Path("testlist01.txt")} if test else {})
    return read_ucf101(root=root, classes=Path("classInd.txt"), **parts)


class TestUcf101:
    def test_split(self, tmp_path: Path) -> None:
        touch(tmp_path, "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "mp4/Archery/v_Archery_g01_c01.mp4")
        train = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 2\r\nArchery/v_Archery_g09_c01.avi 1\r\n"
        annotations = ucf101(tmp_path, BOM + train.encode(), "Archery/v_Archery_g01_c01.avi\n")
        assert annotations.class_names == ("Archery", "ApplyEyeMakeup")
        assert facts(annotations) == {
            "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": ("train", ["ApplyEyeMakeup"]),
            "Archery/v_Archery_g01_c01.avi": ("test", ["Archery"]),
        }
        assert annotations.missing == ("Archery/v_Archery_g09_c01.avi",)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("Archery/a.avi 0", "label 0 is outside "),
            ("Archery/a.avi 3", "which has 2 classes (from 1)"),
            ("ApplyEyeMakeup/a.avi 1", "1 is 'Archery' in "),
            ("Archery/a.avi Archerie", "no class 'Archerie' in "),
            ("Archerie/a.avi", "has no number, and its folder 'Archerie' is no class in "),
            ("a.avi", "has no number, and its folder '' is no class in "),
            ("Archery/a 1", "should be `path label`"),
            ("/Archery/a.avi 1", "does not lie inside"),
            ("../Archery/a.avi 1", "does not lie inside"),
            ("Archery/first.avi 1", "'Archery/first.avi' is already listed at "),
        ],
    )
    def test_wrong_line(self, tmp_path: Path, line: str, expected: str) -> None:
        message = refused(ucf101, tmp_path, f"Archery/first.avi 1\n{line}\n")
        assert message.startswith(f"{tmp_path / 'trainlist01.txt'}:2: ")
        assert expected in message

    @pytest.mark.parametrize(
        ("classes", "expected"),
        [
            ("0 Archery\n", ":1: should be `1 name`, the classes numbered from 1: '0 Archery'"),
            ("1 Archery\n3 Zumba\n", ":2: should be `2 name`"),
            ("Archery\nZumba\n", ":1: should be `1 name`"),
            ("1 Archery\n2\n", ":2: should be `2 name`"),
            ("1 Archery\n2 Archery\n", ":2: class 'Archery' is already named at "),
            ("\n", ": the class list is empty"),
        ],
    )
    def test_wrong_class_list(self, tmp_path: Path, classes: str, expected: str) -> None:
        message = refused(ucf101, tmp_path, "Archery/a.avi 1\n", classes=classes)
        assert message.startswith(f"{tmp_path / 'classInd.txt'}{expected}")

    def test_groups_are_found_in_ids(self, tmp_path: Path) -> None:
        ucf101(tmp_path, "Archery/v_Archery_g08_c01.avi 1\n")
        form = {"format": "ucf101", "classes": "classInd.txt", "train": "trainlist01.txt"}
        spec = DatasetSpec(name="x", root=tmp_path, annotations=form, group=r"v_[^/_]+_(?P<group>g\d+)_c\d+")
        assert [video.group for video in read_annotations(spec).absent] == ["g08"]


def hmdb51(root: Path, split: int = 1, **files: str) -> Annotations:
    for name, content in files.items():
        write(root, f"splits/{name}.txt", content)
    return read_hmdb51(root=root, splits=Path("splits"), split=split)


FILES = {
    "wave_test_split1": "#1 (a)_wave!_0.avi 1 \nb_wave.avi 2 \nunused.avi 0 \n",
    "brush_hair_test_split1": "b_brush.avi 1\r\nsame.avi 2\r\n",
    "wave_test_split2": "same.avi 1\n",
}


class TestHmdb51:
    def test_split(self, tmp_path: Path) -> None:
        touch(tmp_path, "org/wave/#1 (a)_wave!_0.avi", "org/brush_hair/b_brush.mp4", "org/wave/same.avi")
        annotations = hmdb51(tmp_path, **FILES)
        assert annotations.class_names == ("brush_hair", "wave")
        assert facts(annotations) == {
            "wave/#1 (a)_wave!_0.avi": ("train", ["wave"]),
            "brush_hair/b_brush.avi": ("train", ["brush_hair"]),
        }
        assert [(video.id, video.split) for video in annotations.absent] == [
            ("brush_hair/same.avi", "test"),
            ("wave/b_wave.avi", "test"),
            ("wave/unused.avi", None),  # another split uses it: what is cached of it stays
        ]
        assert annotations.absent[-1].labels == ()
        assert list(everything(hmdb51(tmp_path, 2))) == ["wave/same.avi"]

    def test_no_such_split(self, tmp_path: Path) -> None:
        message = refused(hmdb51, tmp_path, 3, **FILES)
        assert message.startswith(f"{tmp_path / 'splits'}: has no files <class>_test_split3.txt")
        message = refused(read_hmdb51, root=tmp_path, splits=Path("gone"), split=1)
        assert message.startswith(f"{tmp_path / 'gone'}: cannot be read (No such file or directory)")

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("a.avi 3", "should be `video.avi 0`, 1 (train) or 2 (test): 'a.avi 3'"),
            ("a.avi", "should be `video.avi 0`"),
            ("a 1", "should be `video.avi 0`"),
            ("../a.avi 1", "'../a.avi' is no video id"),
            ("first.avi 1", "'wave/first.avi' is already listed at "),
        ],
    )
    def test_wrong_line(self, tmp_path: Path, line: str, expected: str) -> None:
        message = refused(hmdb51, tmp_path, wave_test_split1=f"first.avi 1\n{line}\n")
        assert message.startswith(f"{tmp_path / 'splits/wave_test_split1.txt'}:2: ")
        assert expected in message
