"""Names of classes are one however their accents are written, in every format; ids and paths stay what they are."""

import json
import unicodedata
from pathlib import Path

import pytest

from dynaprop.pipeline.annotations import Annotations, read_annotations
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from tests.pipeline.label_files import refused, touch, write


def apart(text: str) -> str:
    """With accents as macOS writes them."""
    taken = unicodedata.normalize("NFD", text)
    assert taken != text or text.isascii()
    return taken


DANCE, JUMP = "capoéira", "salto à corda"


def read(root: Path, **annotations: object) -> Annotations:
    return read_annotations(DatasetSpec(name="x", root=root, annotations=annotations))  # type: ignore[arg-type]


def classes(annotations: Annotations) -> dict[str, list[str]]:
    every = annotations.videos + annotations.absent
    return {video.id: [annotations.class_names[label] for label in video.labels] for video in every}


class TestFolder:
    def test_two_folders_that_look_alike_are_one_class(self, tmp_path: Path) -> None:
        """On Linux both can be there; the files are found where they lie."""
        touch(tmp_path, f"{DANCE}/a.mp4", f"{apart(DANCE)}/b.mp4", "run/c.mp4")
        found = read(tmp_path, format="folder")
        assert found.class_names == (DANCE, "run")
        assert classes(found) == {f"{DANCE}/a.mp4": [DANCE], f"{apart(DANCE)}/b.mp4": [DANCE], "run/c.mp4": ["run"]}
        assert all(video.path.is_file() for video in found.videos)

    def test_parts_of_a_split_may_be_written_on_two_machines(self, tmp_path: Path) -> None:
        touch(tmp_path, f"train/{DANCE}/a.mp4", "train/run/b.mp4", f"test/{apart(DANCE)}/a.mp4", "test/run/b.mp4")
        found = read(tmp_path, format="folder")
        assert found.class_names == (DANCE, "run")
        assert {video.path.relative_to(tmp_path).as_posix() for video in found.videos} == {v.id for v in found.videos}
        assert {video.split: found.class_names[video.labels[0]] for video in found.videos if "a.mp4" in video.id} == {
            "train": DANCE,
            "test": DANCE,
        }


class TestLists:
    @pytest.mark.parametrize(("listed", "labelled"), [(DANCE, apart(DANCE)), (apart(DANCE), DANCE)])
    @pytest.mark.parametrize("form", ["list", "mmaction2", "arnet-activitynet"])
    def test_label_and_class_list(self, tmp_path: Path, form: str, listed: str, labelled: str) -> None:
        write(tmp_path, "classes.txt", f"{listed}\nrun\n")
        touch(tmp_path, "a.mp4", "b.mp4")
        line = "a,5,{}\nb,5,run\n" if form == "arnet-activitynet" else "a.mp4 {}\nb.mp4 run\n"
        write(tmp_path, "train.txt", line.format(labelled))
        keys = {"fps": 25.0} if form == "arnet-activitynet" else {}
        found = read(tmp_path, format=form, classes="classes.txt", train="train.txt", **keys)
        assert found.class_names == (DANCE, "run")
        assert sorted(classes(found).values()) == [[DANCE], ["run"]]

    def test_class_named_twice(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.mp4")
        write(tmp_path, "classes.txt", f"{DANCE}\nrun\n{apart(DANCE)}\n")
        write(tmp_path, "train.txt", "a.mp4 0\n")
        message = refused(read, tmp_path, format="list", classes="classes.txt", train="train.txt")
        assert message.startswith(f"{tmp_path}/classes.txt:3: class {DANCE!r} is already named at ")

    def test_ucf101(self, tmp_path: Path) -> None:
        """The folder of a video is the class of its number, and of a test line without one."""
        touch(tmp_path, f"{apart(DANCE)}/v_a_g01_c01.avi", f"{apart(DANCE)}/v_a_g02_c01.avi")
        write(tmp_path, "classInd.txt", f"1 {DANCE}\n2 run\n")
        write(tmp_path, "train.txt", f"{apart(DANCE)}/v_a_g01_c01.avi 1\n")
        write(tmp_path, "test.txt", f"{apart(DANCE)}/v_a_g02_c01.avi\n")
        found = read(tmp_path, format="ucf101", classes="classInd.txt", train="train.txt", test="test.txt")
        assert [found.class_names[video.labels[0]] for video in found.videos] == [DANCE, DANCE]
        assert all(video.id.startswith(apart(DANCE)) for video in found.videos)
        wrong = "run/v_a_g02_c01.avi 1\n"
        write(tmp_path, "train.txt", wrong)
        message = refused(read, tmp_path, format="ucf101", classes="classInd.txt", train="train.txt", test="test.txt")
        assert f"1 is {DANCE!r} in " in message

    def test_hmdb51(self, tmp_path: Path) -> None:
        touch(tmp_path, f"{DANCE}/a.avi", f"{DANCE}/b.avi", "run/c.avi")
        write(tmp_path, f"splits/{apart(DANCE)}_test_split1.txt", "a.avi 1\nb.avi 2\n")
        write(tmp_path, "splits/run_test_split1.txt", "c.avi 1\n")
        found = read(tmp_path, format="hmdb51", splits="splits")
        assert found.class_names == (DANCE, "run")
        assert sorted(classes(found).values()) == [[DANCE], [DANCE], ["run"]]


class TestNamesInFiles:
    def test_activitynet(self, tmp_path: Path) -> None:
        entries = {
            "a": ("training", [JUMP, apart(JUMP)]),
            "b": ("validation", [apart(JUMP)]),
            "c": ("training", [DANCE]),
        }
        database = {
            name: {"subset": subset, "annotations": [{"label": label, "segment": [0, 1]} for label in labels]}
            for name, (subset, labels) in entries.items()
        }
        write(tmp_path, "net.json", json.dumps({"database": database}))
        touch(tmp_path, "v_a.mp4", "v_b.mp4", "v_c.mp4")
        found = read(tmp_path, format="activitynet", file="net.json")
        assert found.class_names == (DANCE, JUMP)
        assert classes(found) == {"v_a": [JUMP], "v_b": [JUMP], "v_c": [DANCE]}

    def test_kinetics(self, tmp_path: Path) -> None:
        header = "label,youtube_id,time_start,time_end,split\n"
        write(tmp_path, "train.csv", f"{header}{DANCE},a,0,10,train\n")
        write(tmp_path, "val.csv", f"{header}{apart(DANCE)},b,0,10,val\n")
        touch(tmp_path, "a_000000_000010.mp4", "b_000000_000010.mp4")
        found = read(tmp_path, format="kinetics", train="train.csv", val="val.csv")
        assert found.class_names == (DANCE,)
        assert list(classes(found).values()) == [[DANCE], [DANCE]]


def test_a_group_in_the_id_is_one_person(tmp_path: Path) -> None:
    touch(tmp_path, "run/José_1.mp4", f"run/{apart('José')}_2.mp4")
    found = read_annotations(DatasetSpec(name="x", root=tmp_path, group=r"/(.+)_\d"))
    assert {video.group for video in found.videos} == {"José"}
