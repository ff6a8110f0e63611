"""What is said of labels and splits that may be a slip, and that nothing is said where there is none."""

from pathlib import Path

import pytest

from dynaprop.pipeline.annotations import Annotations, SplitName, Video, read_annotations
from dynaprop.pipeline.annotations.label_notes import expected_notes, label_notes
from dynaprop.pipeline.annotations.splits import group_folds, splits_of
from dynaprop.pipeline.catalog.catalog import folder_dataset
from dynaprop.pipeline.catalog.datasets import DatasetSpec


def annotations(
    *videos: tuple[tuple[str, ...], SplitName | None] | tuple[tuple[str, ...], SplitName | None, str],
    classes: tuple[str, ...] = (),
) -> Annotations:
    """Videos given by the names of their classes, their part and, if they have one, their group."""
    names = tuple(sorted({*classes, *(name for labels, *_ in videos for name in labels)}))
    return Annotations(
        tuple(
            Video(
                id=f"{number:03}.mp4",
                path=Path(f"{number:03}.mp4"),
                labels=tuple(names.index(name) for name in labels),
                split=part,
                group=group[0] if group else None,
            )
            for number, (labels, part, *group) in enumerate(videos)
        ),
        names,
    )


def notes(read: Annotations, folds: int = 0) -> tuple[str, ...]:
    return label_notes(read, splits_of(read, folds=folds, seed=0, test_fraction=0.3))


def of_class(name: str) -> Annotations:
    """This class beside `kick`, both in both parts."""
    return annotations(
        *(((label,), part) for label in (name, "kick") for part in ("train", "test"))  # type: ignore[arg-type]
    )


class TestAlike:
    @pytest.mark.parametrize("other", ["Kick", "KICK", "ki ck", "ki_ck", "ki-ck", "\uff4bick", "kick ", "ki\u200bck"])
    def test_said(self, other: str) -> None:
        (note,) = notes(of_class(other))
        assert note.startswith("classes that differ only in case, width, spaces, '_' or '-': ")
        assert repr(other) in note and "'kick'" in note

    @pytest.mark.parametrize("other", ["kicks", "kíck", "kick 2", "k", "-"])
    def test_not_said(self, other: str) -> None:
        assert notes(of_class(other)) == ()

    def test_names_of_signs_alone_differ(self) -> None:
        assert label_notes(annotations((("-",), None), (("_",), None))) == ()

    def test_groups(self) -> None:
        read = annotations(*(((name,), None, group) for name in "ab" for group in ("Ann", "ann", "bob", "cid")))
        (note,) = label_notes(read)
        assert note.startswith("groups that differ only in case") and "'Ann' and 'ann'" in note

    def test_many_are_counted(self) -> None:
        names = [name for letter in "abcde" for name in (letter, letter.upper())]
        (note,) = label_notes(annotations(*(((name,), None) for name in names)))
        assert note.count(" and ") == 4 and "and 2 more" in note


class TestOneSided:
    def test_each_kind(self) -> None:
        """Kick and kick; a class that is never tested; one that no video has."""
        read = annotations(
            *[(("Kick",), "train"), (("kick",), "test"), (("hug",), "train"), (("hug",), "test")], classes=("run",)
        )
        assert notes(read)[1:] == (
            "given split: 1 of 4 classes without a training video: no model can learn them, and their test videos "
            "count as wrong ('kick')",
            "given split: 1 of 4 classes without a test video: nothing is measured of them, and each counts 0 in mAP "
            "('Kick')",
            "given split: 1 of 4 classes without any video: each counts 0 in mAP ('run')",
        )

    def test_a_class_that_is_only_a_second_label_is_not_learnt(self) -> None:
        read = annotations((("a", "b"), "train"), (("a",), "test"), (("b",), "test"))
        (note,) = notes(read)
        assert "1 of 2 classes without a training video" in note and "('b')" in note

    def test_validation_part(self) -> None:
        (note,) = notes(annotations((("a",), "train"), (("b",), "train"), (("a",), "val")))
        assert note.startswith("given split (validation): 1 of 2 classes without a test video")

    def test_folds(self) -> None:
        """Counted one by one from the folds themselves."""
        read = annotations(
            *((("a",), None, f"g{group}") for group in range(6)),
            *((("b",), None, f"g{group}") for group in (0, 0, 1)),
        )
        folds = group_folds(read, 3)
        assert len(folds) == 3
        b = read.class_names.index("b")
        untested = sum(not any(b in read.videos[v].labels for v in fold.test) for fold in folds)
        unlearnt = sum(not any(b in read.videos[v].labels for v in fold.train) for fold in folds)
        found = notes(read, folds=3)
        assert untested and any("without a test video" in n and f"('b' in {untested} of 3)" in n for n in found)
        assert any("without a training video" in n for n in found) == bool(unlearnt)
        assert all(note.startswith("3 folds: ") for note in found)

    def test_nothing_of_a_whole_split(self) -> None:
        read = annotations(*(((name,), None) for name in "abc" for _ in range(4)))
        assert notes(read) == notes(read, folds=2) == ()


class TestGroups:
    def test_given_split_that_does_not_keep_them_apart(self) -> None:
        read = annotations(*(((n,), part, g) for n in "ab" for part in ("train", "test") for g in ("x", f"y-{part}")))  # type: ignore[misc]
        (note,) = notes(read)
        assert note.startswith("given split: 1 group lies on both sides ('x')")
        assert not [note for note in notes(read, folds=2) if "both sides" in note]


class TestExpected:
    def test_why_no_model_can_be_trained(self) -> None:
        (note,) = expected_notes(annotations((("a",), None), (("a",), None)), seed=0, test_fraction=0.3)
        assert note.startswith("as the labels are, training will be refused: all labelled videos are of the one class")

    def test_videos_without_labels_are_no_slip(self) -> None:
        assert expected_notes(annotations(((), None)), seed=0, test_fraction=0.3) == ()


def test_the_real_data_sets_are_free_of_slips(data_root: Path) -> None:
    """But for what their groups say: UT-Interaction's lists keep sequences apart, J-HMDB's film without a name."""
    weizmann = read_annotations(folder_dataset(data_root / "weizmann"))
    assert expected_notes(weizmann, seed=0, test_fraction=0.3) == ()
    lists = {"format": "list", "classes": "../classes.txt", "train": "../train.txt", "test": "../test.txt"}
    spec = DatasetSpec(
        name="ut", root=data_root / "ut-interaction" / "videos", annotations=lists, group=r"set\d+_\d+_(\d+)_\d+\."
    )  # type: ignore[arg-type]
    assert expected_notes(read_annotations(spec), seed=0, test_fraction=0.3) == ()
    (note,) = expected_notes(read_annotations(folder_dataset(data_root / "j-hmdb")), seed=0, test_fraction=0.3)
    assert note.startswith("groups.csv: 316 groups of 928 videos; ")
