"""Kinetics' csv files: clips, labels, and refusals with their place."""

from pathlib import Path
from typing import Any

import pytest

from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.annotations.kinetics import read_kinetics
from tests.pipeline.label_files import BOM, everything, facts, refused, touch, write

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def kinetics(root: Path, train: str | bytes, test: str | bytes | None = None, **keys: Any) -> Annotations:
    write(root, "train.csv", train)
    if test is not None:
        write(root, "test.csv", test)
        keys["test"] = Path("test.csv")
    return read_kinetics(root=root, train=Path("train.csv"), **keys)


class TestKinetics:
    def test_rows(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/-abc_DEF123_000010_000020.mp4", "val/zumba/0x_000000_000010.webm")
        rows = '"dancing, fast",-abc_DEF123,10,20,train,0\nzumba,0x,0,10.0,train,1\nzumba,gone,5,15,train,0\n'
        annotations = kinetics(tmp_path, HEADER + rows)
        assert annotations.class_names == ("dancing, fast", "zumba")
        assert facts(annotations) == {
            "-abc_DEF123_000010_000020": ("train", ["dancing, fast"]),
            "0x_000000_000010": ("train", ["zumba"]),
        }
        assert annotations.missing == ("gone_000005_000015",)

    def test_id_alone_is_not_the_clip(self, tmp_path: Path) -> None:
        touch(tmp_path, "abc.mp4", "abc_000010_000020_raw.mp4", "abc_000011_000021.mp4")
        assert kinetics(tmp_path, HEADER + "zumba,abc,10,20,train,0\n").missing == ("abc_000010_000020",)

    def test_windows_file_and_other_column_order(self, tmp_path: Path) -> None:
        text = "time_end, time_start,youtube_id,label\r\n20,10,abc,zumba\r\n\r\n"
        annotations = kinetics(tmp_path, BOM + text.encode())
        assert everything(annotations)["abc_000010_000020"].labels == (0,)

    @pytest.mark.parametrize(
        "test", ["youtube_id,time_start,time_end,split\nabc,1,2,test\n", HEADER + ",abc,1,2,test,\n"]
    )
    def test_unlabelled_test_part(self, tmp_path: Path, test: str) -> None:
        annotations = kinetics(tmp_path, HEADER + "zumba,xyz,0,10,train,0\n", test)
        video = everything(annotations)["abc_000001_000002"]
        assert (video.labels, video.split) == ((), "test")

    def test_same_video_in_two_clips(self, tmp_path: Path) -> None:
        rows = "zumba,abc,0,10,train,0\nzumba,abc,10,20,train,0\n"
        assert len(kinetics(tmp_path, HEADER + rows).missing) == 2

    def test_class_list(self, tmp_path: Path) -> None:
        write(tmp_path, "classes.txt", "zumba\narchery\n")
        annotations = kinetics(tmp_path, HEADER + "archery,a,0,10,train,0\n", classes=Path("classes.txt"))
        assert everything(annotations)["a_000000_000010"].labels == (1,)

    @pytest.mark.parametrize(
        ("rows", "line", "expected"),
        [
            ("zumba,a,0,10,train,0\narchery,b,0,10,train,0\n", 3, "no class 'archery' in "),
            ("zumba,a,0,10,train,0\nzumba,a,0,10,val,0\n", 3, "'a_000000_000010' is already listed at "),
            ("zumba,a,x,10,train,0\n", 2, "time_start should be a whole number of seconds, not 'x'"),
            ("zumba,a,0,-1,train,0\n", 2, "time_end should be a whole number of seconds, not '-1'"),
            ("zumba,a,0,10.5,train,0\n", 2, "time_end should be a whole number of seconds, not '10.5'"),
            ("zumba,a,0,10\n", 2, "4 fields under a header of 6"),
            ("salsa, fast,a,0,10,train,0\n", 2, "7 fields under a header of 6; quote labels with commas"),
            (",a,0,10,train,0\n", 2, "the label is empty"),
            ("zumba,,0,10,train,0\n", 2, "'' is no video id"),
            ("zumba,../a,0,10,train,0\n", 2, "'../a' is no video id"),
            ('zumba,"a\nb",0,10,train,0\n', 3, "'a\\nb' is no video id"),
        ],
    )
    def test_wrong_row(self, tmp_path: Path, rows: str, line: int, expected: str) -> None:
        write(tmp_path, "classes.txt", "zumba\n")
        message = refused(kinetics, tmp_path, HEADER + rows, classes=Path("classes.txt"))
        assert message.startswith(f"{tmp_path / 'train.csv'}:{line}: ")
        assert expected in message

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("zumba,a,0,10,train,0\n", ":1: the header lacks youtube_id, time_start, time_end, label; it should be "),
            ("youtube_id,time_start,time_end,split\na,0,10,train\n", ":1: the header lacks label;"),
            ("", ": no videos are listed"),
            (HEADER, ": no videos are listed"),
            (HEADER + f'"{"x" * 200_000}",a,0,10,train,0\n', ":2: is not csv (field larger than field limit"),
            (HEADER.encode() + b"\xff,a,0,10,train,0\n", ": is not UTF-8 text"),
        ],
    )
    def test_wrong_file(self, tmp_path: Path, content: str | bytes, expected: str) -> None:
        message = refused(kinetics, tmp_path, content)
        assert message.startswith(f"{tmp_path / 'train.csv'}{expected}")

    def test_two_files(self, tmp_path: Path) -> None:
        # As in the official download, whose replacement/ has other copies of damaged videos.
        touch(tmp_path, "train/a_000000_000010.mp4", "replacement/a_000000_000010.mp4")
        message = refused(kinetics, tmp_path, HEADER + "zumba,a,0,10,train,0\n")
        assert message.startswith(f"{tmp_path / 'train.csv'}:2: 'a_000000_000010' has two files below ")
        assert "'train/a_000000_000010.mp4'" in message and "'replacement/a_000000_000010.mp4'" in message
