"""Groups from a csv file: whose they are, what the file may look like, and what is refused."""

import csv
import shutil
import unicodedata
from pathlib import Path

import pytest

from dynaprop.pipeline.annotations import Annotations, read_annotations
from dynaprop.pipeline.annotations.splits import given_or_stratified, group_folds
from dynaprop.pipeline.catalog.catalog import folder_dataset
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.formats import GroupFile
from tests.pipeline.label_files import BOM, refused, touch, write

VIDEOS = ("kick/a.avi", "kick/b.mp4", "hug/c d.avi", "hug/é.mkv")


def annotations(root: Path, text: str | bytes, **columns: str) -> Annotations:
    """Write the file and read the folder with it."""
    write(root, "groups.csv", text)
    return read_annotations(
        DatasetSpec(name="x", root=root, groups=GroupFile(file=Path("groups.csv"), **columns))  # type: ignore[arg-type]
    )


def groups(read: Annotations) -> dict[str, str | None]:
    return {video.id: video.group for video in read.videos + read.absent}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path, *VIDEOS)


class TestReading:
    def test_group_of_each_video(self, root: Path) -> None:
        read = annotations(root, "video,group\nkick/a.avi,p1\nkick/b.mp4,p2\nhug/c d.avi,p1\nhug/é.mkv,p2\n")
        assert groups(read) == {"kick/a.avi": "p1", "kick/b.mp4": "p2", "hug/c d.avi": "p1", "hug/é.mkv": "p2"}
        assert read.notes == ("groups.csv: 2 groups of 4 videos",)

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("before", [b"", BOM])
    def test_forms_of_a_table(self, root: Path, delimiter: str, end: str, before: bytes) -> None:
        """Other columns, quotes, blank lines, blanks around names, and the file's own names of the columns."""
        rows = [("film", "clip", "title"), *((f"f{n}", f' "{video}"', "x") for n, video in enumerate(VIDEOS))]
        lines = [delimiter.join((first, second.strip(), third)) for first, second, third in rows]
        text = f"{end}".join(["", lines[0], "", *lines[1:], delimiter * 2, ""])
        read = annotations(root, before + text.encode(), video="clip", group="film")
        assert groups(read) == {video: f"f{n}" for n, video in enumerate(VIDEOS)}

    def test_ways_to_write_a_path(self, root: Path) -> None:
        """Without extension, with another one, with backslashes and dots, absolute, and with the accent taken apart."""
        accent = unicodedata.normalize("NFD", "hug/é.mkv")
        assert accent != "hug/é.mkv"
        text = f"video,group\nkick\\a,p1\n./kick/b.MOV,p2\n{root}/hug/c d.avi,p3\n{accent},p4\n"
        assert groups(annotations(root, text)) == {
            **{"kick/a.avi": "p1", "kick/b.mp4": "p2"},
            **{"hug/c d.avi": "p3", "hug/é.mkv": "p4"},
        }

    def test_accents_of_files_may_be_apart(self, tmp_path: Path) -> None:
        """The id stays as the file is called, and a person is one however the name is written."""
        name = unicodedata.normalize("NFD", "hug/é.mkv")
        touch(tmp_path, name, "hug/b.mkv")
        read = annotations(tmp_path, f"video,group\nhug/é.mkv,José\nhug/b.mkv,{unicodedata.normalize('NFD', 'José')}\n")
        assert groups(read) == {name: "José", "hug/b.mkv": "José"}
        assert all(video.path.is_file() for video in read.videos)

    def test_same_name_with_two_extensions(self, tmp_path: Path) -> None:
        touch(tmp_path, "kick/a.avi", "kick/a.mp4")
        apart = annotations(tmp_path, "video,group\nkick/a.mp4,p1\nkick/a.avi,p2\n")
        assert groups(apart) == {"kick/a.avi": "p2", "kick/a.mp4": "p1"}
        together = annotations(tmp_path, "video,group\nkick/a,p1\n")
        assert groups(together) == {"kick/a.avi": "p1", "kick/a.mp4": "p1"}

    def test_rows_of_other_videos_are_counted(self, root: Path) -> None:
        text = "video,group\n" + "".join(f"{video},p\n" for video in ("not/here.avi", *VIDEOS, "nor/this.avi"))
        assert annotations(root, text).notes == (
            "groups.csv: 1 group of 4 videos; 2 of its rows fit no video here, 'not/here.avi' first",
        )

    def test_absent_videos_have_groups_too(self, tmp_path: Path) -> None:
        """So that a split does not change with what is on disk."""
        touch(tmp_path, "a.avi")
        write(tmp_path, "classes.txt", "kick\n")
        write(tmp_path, "train.txt", "a.avi kick\nb.avi kick\n")
        write(tmp_path, "test.txt", "no-label.avi\n")
        write(tmp_path, "persons.csv", "video,group\na,p1\nb,p2\n")
        spec = DatasetSpec(
            name="x",
            root=tmp_path,
            annotations={"format": "list", "classes": "classes.txt", "train": "train.txt", "test": "test.txt"},
            groups={"file": "persons.csv"},
        )
        assert groups(read_annotations(spec)) == {"a.avi": "p1", "b.avi": "p2", "no-label.avi": None}

    def test_one_empty_group_stands_alone(self, root: Path) -> None:
        read = annotations(root, "video,group\nkick/a,p1\nkick/b,\nhug/c d,p1\nhug/é,p2\n")
        alone = groups(read).pop("kick/b.mp4")
        assert [video for video, group in groups(read).items() if group == alone] == ["kick/b.mp4"]
        assert f"'kick/b' has an empty one ({root}/groups.csv:3) and counts as a group of its own" in read.notes[0]


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("video,group\nkick/a.avi,p1\n", ": has no group for 3 of 4 videos, 'hug/c d.avi' first (its first row is"),
            ("video,group\n{all}kick/a,p2\n", ":6: puts 'kick/a.avi' into the group 'p2', and {file}:2 into 'p1'"),
            ("video,group\n{all}kick\\a.avi,p2\n", ":6: puts 'kick/a.avi' into the group 'p2', and {file}:2"),
            (
                "video,group\nkick/a,\nkick/b,\nhug/c d,\nhug/é,p\n",
                ":2: the column 'group' is empty here and in 2 more",
            ),
            ("video,group\n,p1\n", ":2: the column 'video' is empty"),
            ("video,group\nkick/a.avi,p1,p2\n", ":2: 3 fields under a header of 2"),
            ("video,group\nkick/a.avi\n", ":2: 1 fields under a header of 2"),
            ('video,group\n"kick/a.avi,p1\nkick/b,p1\n', ": is not csv (unexpected end of data)"),
            ("clip,group\nkick/a.avi,p1\n", ": no column 'video' in the header (known: clip, group)"),
            ("videos,group\nkick/a.avi,p1\n", ": no column 'video' in the header (did you mean 'videos'?)"),
            ("kick/a.avi p1\n", ": no column 'video' in the header"),
            ("video,group,group\nkick/a.avi,p1,p1\n", ": two columns of one name in the header"),
            ("video,group\n\n", ": lists no video"),
            ("", ": no column 'video' in the header"),
            (b"video,group\nkick/\xe9,p1\n", ": is not UTF-8 text"),
        ],
    )
    def test_file(self, root: Path, text: str | bytes, expected: str) -> None:
        everyone = "".join(f"{video},p1\n" for video in VIDEOS)
        filled = text if isinstance(text, bytes) else text.replace("{all}", everyone)
        message = refused(annotations, root, filled)
        assert message.startswith(f"{root}/groups.csv")
        assert expected.replace("{file}", f"{root}/groups.csv") in message

    def test_missing_file(self, root: Path) -> None:
        spec = DatasetSpec(name="x", root=root, groups=GroupFile(file=Path("no.csv")))
        assert refused(read_annotations, spec).startswith(f"{root}/no.csv: cannot be read")

    def test_extension_that_is_not_here_leaves_it_open(self, tmp_path: Path) -> None:
        """Two rows might be the video, and say different things."""
        touch(tmp_path, "kick/a.mkv")
        message = refused(annotations, tmp_path, "video,group\nkick/a.avi,p1\nkick/a.mp4,p2\n")
        assert ":3: puts 'kick/a.mkv' into the group 'p2'" in message


class TestPlainFolder:
    def test_groups_csv_is_found(self, root: Path) -> None:
        assert groups(read_annotations(folder_dataset(root))) == dict.fromkeys(VIDEOS)
        write(root, "groups.csv", "video,group\n" + "".join(f"{video},p\n" for video in VIDEOS))
        assert groups(read_annotations(folder_dataset(root))) == dict.fromkeys(VIDEOS, "p")

    def test_one_that_cannot_be_used_is_refused(self, root: Path) -> None:
        """A link that leads nowhere, too: going on without groups would be another split."""
        (root / "groups.csv").symlink_to(root / "nowhere.csv")
        assert "cannot be read" in refused(read_annotations, folder_dataset(root))


class TestJHmdb:
    @pytest.fixture
    def folder(self, data_root: Path) -> Path:
        return data_root / "j-hmdb"

    def test_real_file(self, folder: Path) -> None:
        """Read once more by other means, and no film on both sides of a split."""
        with (folder / "groups.csv").open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        read = read_annotations(folder_dataset(folder))
        assert len(read.videos) == 928
        expected = {row["video"]: row["group"] for row in rows if row["group"]}
        assert len(expected) == 927  # the film called 21 lost its name
        assert {video: group for video, group in groups(read).items() if video in expected} == expected
        assert len(set(groups(read).values())) == len(set(expected.values())) + 1
        for split in (given_or_stratified(read, 0, 0.3), *group_folds(read, 5)):
            sides = [{read.videos[i].group for i in part} for part in (split.train, split.test)]
            assert all(sides) and not sides[0] & sides[1]

    def test_video_that_the_file_lacks(self, folder: Path, tmp_path: Path) -> None:
        for name in ("kick_ball", "clap"):
            shutil.copytree(folder / name, tmp_path / name)
        shutil.copy(folder / "groups.csv", tmp_path)
        shutil.copy(next((tmp_path / "clap").iterdir()), tmp_path / "clap" / "new.avi")
        message = refused(read_annotations, folder_dataset(tmp_path))
        assert "has no group for 1 of " in message and "'clap/new.avi' first" in message
