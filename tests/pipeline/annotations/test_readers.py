"""Readers of label formats: what they find, and that everything that cannot be used is refused with its place."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynaprop.pipeline.annotations import Annotations, Video, read_annotations, require_labels
from dynaprop.pipeline.annotations.folder import read_folder
from dynaprop.pipeline.annotations.path_list import read_path_lists
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.errors import UsageError
from tests.pipeline.label_files import facts, refused, touch

REPOSITORY = Path(__file__).resolve().parents[3]


class TestFolder:
    def test_by_class(self, tmp_path: Path) -> None:
        touch(tmp_path, "run/b.mp4", "run/a.AVI", "jump/c.webm", "jump/notes.txt", "readme.md")
        annotations = read_folder(root=tmp_path)
        assert annotations.class_names == ("jump", "run")
        assert facts(annotations) == {
            "jump/c.webm": (None, ["jump"]),
            "run/a.AVI": (None, ["run"]),
            "run/b.mp4": (None, ["run"]),
        }
        assert [video.path for video in annotations.videos] == [tmp_path / video.id for video in annotations.videos]
        assert annotations.held_out_part is None

    @pytest.mark.parametrize(
        ("train", "val", "test"),
        [("train", "val", "test"), ("Training", "validation", "TESTING"), ("train", "valid", "test")],
    )
    def test_split_folders(self, tmp_path: Path, train: str, val: str, test: str) -> None:
        touch(tmp_path, f"{train}/run/a.mp4", f"{train}/jump/a.mp4", f"{val}/run/a.mp4", f"{test}/run/a.mp4")
        annotations = read_folder(root=tmp_path)
        assert annotations.class_names == ("jump", "run")
        assert facts(annotations) == {
            f"{train}/jump/a.mp4": ("train", ["jump"]),
            f"{train}/run/a.mp4": ("train", ["run"]),
            f"{val}/run/a.mp4": ("val", ["run"]),
            f"{test}/run/a.mp4": ("test", ["run"]),
        }
        assert annotations.held_out_part == "test"

    def test_same_stem_in_two_classes_stays_apart(self, tmp_path: Path) -> None:
        annotations = read_folder(root=touch(tmp_path, "a/x.mp4", "b/x.mp4", "a/x.avi"))
        assert [video.id for video in annotations.videos] == ["a/x.avi", "a/x.mp4", "b/x.mp4"]

    def test_deeper_folders_belong_to_the_class(self, tmp_path: Path) -> None:
        annotations = read_folder(root=touch(tmp_path, "run/day 1/a.mp4", "run/day 2/a.mp4", "jump/x.mp4"))
        assert facts(annotations)["run/day 2/a.mp4"] == (None, ["run"])

    def test_flat_folder_is_unlabelled(self, tmp_path: Path) -> None:
        annotations = read_folder(root=touch(tmp_path, "a.mp4", "b c.mkv"))
        assert facts(annotations) == {"a.mp4": (None, []), "b c.mkv": (None, [])}
        assert annotations.class_names == ()

    def test_unlabelled_test_part_is_not_what_is_measured(self, tmp_path: Path) -> None:
        # ActivityNet's test subset has no annotations.
        annotations = read_folder(root=touch(tmp_path, "train/a/1.mp4", "val/a/2.mp4", "test/3.mp4"))
        assert facts(annotations)["test/3.mp4"] == ("test", [])
        assert annotations.held_out_part == "val"

    def test_class_called_train(self, tmp_path: Path) -> None:
        annotations = read_folder(root=touch(tmp_path, "train/1.mp4", "bus/2.mp4"))
        assert facts(annotations) == {"bus/2.mp4": (None, ["bus"]), "train/1.mp4": (None, ["train"])}

    def test_split_folders_beside_classes(self, tmp_path: Path) -> None:
        message = refused(read_folder, root=touch(tmp_path, "train/run/1.mp4", "extra/2.mp4"))
        assert message.startswith(f"{tmp_path}: 'train' looks like a split")
        assert "'extra'" in message

    def test_hidden_and_other_files_are_passed_over(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/1.mp4", "a/._1.mp4", ".cache/2.mp4", "empty/x.txt", "a/frame.jpg", "a/mp4", "a/anim.gif")
        annotations = read_folder(root=tmp_path)
        assert facts(annotations) == {"a/1.mp4": (None, ["a"])}
        assert annotations.class_names == ("a",)

    def test_folder_named_like_a_video(self, tmp_path: Path) -> None:
        annotations = read_folder(root=touch(tmp_path, "a/x.mp4/frame.jpg", "a/y.mp4"))
        assert [video.id for video in annotations.videos] == ["a/y.mp4"]

    def test_order_does_not_depend_on_creation(self, tmp_path: Path) -> None:
        names = [f"{name}/{number}.mp4" for name in ("é", "b", "B") for number in (10, 9)]
        one, two = touch(tmp_path / "1", *names), touch(tmp_path / "2", *reversed(names))
        assert facts(read_folder(root=one)) == facts(read_folder(root=two))
        assert read_folder(root=one).class_names == ("B", "b", "é")

    @pytest.mark.parametrize("names", [(), ("notes.txt",), ("a/b/c.jpg", ".a/1.mp4")])
    def test_no_videos(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        assert refused(read_folder, root=touch(tmp_path, *names)).startswith(f"{tmp_path}: no videos here")

    @pytest.mark.parametrize("link", ["a/link.mp4", "b"])
    def test_links_that_leave_the_folder(self, tmp_path: Path, link: str) -> None:
        touch(tmp_path, "root/a/1.mp4", "outside/secret.mp4")
        target = tmp_path / "outside" / ("secret.mp4" if link.endswith("mp4") else "")
        (tmp_path / "root" / link).symlink_to(target)
        message = refused(read_folder, root=tmp_path / "root")
        assert message.startswith(f"{tmp_path / 'root' / link}: this link leaves the dataset's folder")

    def test_links_that_lead_nowhere_are_absent_videos(self, tmp_path: Path) -> None:
        """A disk that is not mounted must not stop the rest, wherever its links would lead."""
        touch(tmp_path, "root/a/1.mp4")
        (tmp_path / "root/a/2.mp4").symlink_to(tmp_path / "outside" / "2.mp4")
        (tmp_path / "root/a/3.mp4").symlink_to("../../../gone.mp4")
        annotations = read_folder(root=tmp_path / "root")
        assert [video.id for video in annotations.videos] == ["a/1.mp4"]
        assert annotations.missing == ("a/2.mp4", "a/3.mp4")
        touch(tmp_path, "outside/2.mp4")
        assert "this link leaves the dataset's folder" in refused(read_folder, root=tmp_path / "root")

    def test_links_inside(self, tmp_path: Path) -> None:
        touch(tmp_path, "real/a/1.mp4")
        (tmp_path / "real/a/again").symlink_to(tmp_path / "real")  # would never end if it were followed
        (tmp_path / "real/a/2.mp4").symlink_to("1.mp4")
        (tmp_path / "real/a/3.mp4").symlink_to("gone.mp4")
        (tmp_path / "real/a/4.mp4").symlink_to("4.mp4")  # a link to itself
        (tmp_path / "real/a/notes.txt").symlink_to("/etc/hostname")  # no video: none of our business
        (tmp_path / "root").symlink_to(tmp_path / "real")
        annotations = read_folder(root=tmp_path / "root")
        assert [video.id for video in annotations.videos] == ["a/1.mp4", "a/2.mp4"]
        assert annotations.missing == ("a/3.mp4", "a/4.mp4")

    def test_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"bad\xff.mp4")).touch()
        assert "is not UTF-8; rename the file" in refused(read_folder, root=tmp_path)

    def test_root_that_is_gone(self, tmp_path: Path) -> None:
        assert "cannot be read (No such file or directory)" in refused(read_folder, root=tmp_path / "gone")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Root of a dataset of lists: three videos, two classes, one of which is two words."""
    touch(tmp_path, "videos/a/1.mp4", "videos/a/two words.mp4", "videos/b/3.AVI")
    (tmp_path / "classes.txt").write_text("run\nlong jump\n")
    return tmp_path / "videos"


def read_list(root: Path, train: str | bytes, test: str | None = None) -> Annotations:
    """Read lists with this content; they and the class list lie above the root."""
    (root.parent / "train.txt").write_bytes(train.encode() if isinstance(train, str) else train)
    if test is not None:
        (root.parent / "test.txt").write_text(test)
    return read_path_lists(
        root=root,
        classes=Path("../classes.txt"),
        train=Path("../train.txt"),
        test=Path("../test.txt") if test is not None else None,
    )


class TestPathList:
    @pytest.mark.parametrize(
        ("line", "labels"),
        [
            ("a/1.mp4 0", (0,)),
            ("a/1.mp4 run", (0,)),
            ("a/1.mp4 long jump", (1,)),
            ("a/1.mp4 1 0", (1, 0)),
            ("a/1.mp4 1,0", (1, 0)),
            ("a/1.mp4 run, 1", (0, 1)),
            ("a/1.mp4 0 0", (0,)),
            ("a/1.mp4\t1", (1,)),
            ("  a/1.mp4   0  ", (0,)),
            ("./a//1.mp4 0", (0,)),
        ],
    )
    def test_line(self, dataset: Path, line: str, labels: tuple[int, ...]) -> None:
        (video,) = read_list(dataset, line + "\n").videos
        assert (video.id, video.labels, video.split, video.path) == ("a/1.mp4", labels, "train", dataset / "a/1.mp4")

    def test_path_with_spaces_and_upper_case(self, dataset: Path) -> None:
        annotations = read_list(dataset, "a/two words.mp4 long jump\nb/3.AVI 0\n")
        assert facts(annotations) == {"a/two words.mp4": ("train", ["long jump"]), "b/3.AVI": ("train", ["run"])}

    def test_folder_named_like_a_video(self, dataset: Path) -> None:
        touch(dataset, "x.mp4 y/z.mp4")
        (video,) = read_list(dataset, "x.mp4 y/z.mp4 1").videos
        assert (video.id, video.labels) == ("x.mp4 y/z.mp4", (1,))

    def test_parts_and_order(self, dataset: Path) -> None:
        annotations = read_list(dataset, "b/3.AVI 1\n", "a/1.mp4 0\n")
        assert facts(annotations) == {"a/1.mp4": ("test", ["run"]), "b/3.AVI": ("train", ["long jump"])}
        assert annotations.class_names == ("run", "long jump")  # the list's order, not the alphabet's
        assert annotations.held_out_part == "test"

    def test_windows_files(self, dataset: Path) -> None:
        (dataset.parent / "classes.txt").write_bytes(b"\xef\xbb\xbfrun\r\nlong jump\r\n\r\n")
        annotations = read_list(dataset, b"\xef\xbb\xbfa/1.mp4 run\r\n\r\nb/3.AVI 1\r\n")
        assert facts(annotations) == {"a/1.mp4": ("train", ["run"]), "b/3.AVI": ("train", ["long jump"])}

    def test_missing_files_are_kept_apart(self, dataset: Path) -> None:
        long_name = "x" * 300
        annotations = read_list(dataset, f"z/gone.mp4 0\na/1.mp4 0\n{long_name}.mp4 1\n", "a/gone.mp4 1\n")
        assert [video.id for video in annotations.videos] == ["a/1.mp4"]
        assert annotations.missing == ("a/gone.mp4", f"{long_name}.mp4", "z/gone.mp4")
        assert [video.split for video in annotations.absent] == ["test", "train", "train"]

    def test_lists_beside_a_linked_root(self, dataset: Path, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        (tmp_path / "here/videos").symlink_to(dataset)
        (tmp_path / "here/classes.txt").write_text("x\ny\n")
        annotations = read_list(tmp_path / "here/videos", "a/1.mp4 1\n")
        assert facts(annotations) == {"a/1.mp4": ("train", ["y"])}

    @pytest.mark.parametrize(
        ("lines", "number", "expected"),
        [
            ("a/1.mp4 0\na/two words.mp4 2\n", 2, "label 2 is outside"),
            ("a/1.mp4 -1\n", 1, "no class '-1'"),
            ("a/1.mp4 jumpp\n", 1, "no class 'jumpp'"),
            ("a/1.mp4 rum\n", 1, "(did you mean 'run'?)"),
            ("a/1.mp4 1.0\n", 1, "no class '1.0'"),
            ("a/1.mp4 99999999999999999999\n", 1, "no class '9999"),
            ("a/1.mp4 ²\n", 1, "no class '²'"),
            ("a/1.mp4 0\n\n./a/1.mp4 1\n", 3, "a/1.mp4 is already listed at"),
            ("/etc/1.mp4 0\n", 1, "does not lie inside"),
            ("../videos/a/1.mp4 0\n", 1, "does not lie inside"),
            ("a/../a/1.mp4 0\n", 1, "does not lie inside"),
            ("link/1.mp4 0\n", 1, "does not lie inside"),
            ("a/\0.mp4 0\n", 1, "does not lie inside"),
            ("a/1.txt 0\n", 1, "should be `path label`"),
            ("a/1.mp40\n", 1, "should be `path label`"),
            ("0\n", 1, "should be `path label`"),
            (".mp4 0\n", 1, "should be `path label`"),
        ],
    )
    def test_wrong_line(self, dataset: Path, lines: str, number: int, expected: str) -> None:
        touch(dataset.parent, "outside/1.mp4")
        (dataset / "link").symlink_to(dataset.parent / "outside")
        message = refused(read_list, dataset, lines)
        assert message.startswith(f"{dataset.parent / 'train.txt'}:{number}: ")
        assert expected in message

    def test_listed_in_two_lists(self, dataset: Path) -> None:
        message = refused(read_list, dataset, "a/1.mp4 0\n", "b/3.AVI 0\na/1.mp4 0\n")
        assert message.startswith(f"{dataset.parent / 'test.txt'}:2: a/1.mp4 is already listed at ")
        assert f"{dataset.parent / 'train.txt'}:1;" in message

    @pytest.mark.parametrize(
        ("classes", "expected"),
        [
            ("", "classes.txt: the class list is empty"),
            ("run\n\njump\n", "classes.txt:2: a blank line inside the class list"),
            ("run\njump\nrun\n", "classes.txt:3: class 'run' is already named at"),
            (None, "classes.txt: cannot be read (No such file or directory)"),
            (b"\xff\xfe", "classes.txt: is not UTF-8 text"),
            ("1 run\n2 jump\n", "classes.txt:1: the classes are numbered from 1; write the names alone"),
            ("1\n0\n", "train.txt:1: 0 is the name of one class and the index of another"),
        ],
    )
    def test_wrong_class_list(self, dataset: Path, classes: str | bytes | None, expected: str) -> None:
        path = dataset.parent / "classes.txt"
        path.unlink()
        if classes is not None:
            path.write_bytes(classes.encode() if isinstance(classes, str) else classes)
        message = refused(read_list, dataset, "a/1.mp4 0\n")
        assert message.startswith(str(dataset.parent))
        assert expected in message

    def test_numbers_as_names_where_they_agree(self, dataset: Path) -> None:
        (dataset.parent / "classes.txt").write_text("0\n1\n")
        assert read_list(dataset, "a/1.mp4 1\n").videos[0].labels == (1,)

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [("", "no videos are listed"), ("x.mp4 0\ny.mp4 1\n", "none of the 2 listed videos exists")],
    )
    def test_nothing_to_use(self, dataset: Path, lines: str, expected: str) -> None:
        message = refused(read_list, dataset, lines)
        assert expected in message and str(dataset) in message

    def test_missing_list(self, dataset: Path) -> None:
        message = refused(read_path_lists, root=dataset, classes=Path("../classes.txt"), val=Path("../val.txt"))
        assert message.startswith(f"{dataset.parent / 'val.txt'}: cannot be read (No such file or directory)")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
    @given(text=st.text(alphabet="a/1.mp4 0,\n\r\0é\u2028", max_size=40) | st.binary(max_size=30))
    def test_any_list_is_read_or_refused_in_one_line(self, dataset: Path, text: str | bytes) -> None:
        try:
            annotations = read_list(dataset, text)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert all(video.path.resolve().is_relative_to(dataset.resolve()) for video in annotations.videos)


class TestGroups:
    def spec(self, root: Path, group: str | None) -> DatasetSpec:
        return DatasetSpec(name="x", root=root, group=group)

    @pytest.mark.parametrize("group", [r"(\w+?)\d*_", r"(?:/|^)(?P<group>[a-z]+)\d*_(\w+)"])
    def test_first_or_named_group(self, tmp_path: Path, group: str) -> None:
        # The original Weizmann files have lena_walk1 and lena_walk2; other copies number the person.
        touch(tmp_path, "walk/lena_walk1.avi", "walk/lena2_walk.avi", "run/ido_run.avi")
        annotations = read_annotations(self.spec(tmp_path, group))
        assert {video.id: video.group for video in annotations.videos} == {
            "run/ido_run.avi": "ido",
            "walk/lena2_walk.avi": "lena",
            "walk/lena_walk1.avi": "lena",
        }

    def test_no_pattern_no_groups(self, tmp_path: Path) -> None:
        annotations = read_annotations(self.spec(touch(tmp_path, "a/1.mp4"), None))
        assert [video.group for video in annotations.videos] == [None]

    @pytest.mark.parametrize("pattern", [r"(\d+)_", r"(x)?"])
    def test_video_without_a_group(self, tmp_path: Path, pattern: str) -> None:
        touch(tmp_path, "a/clip.mp4")
        message = refused(read_annotations, self.spec(tmp_path, pattern))
        assert message.startswith("dataset 'x', key 'group': ")
        assert "'a/clip.mp4'" in message

    def test_missing_root(self, tmp_path: Path) -> None:
        assert "no folder" in refused(read_annotations, self.spec(tmp_path / "gone", None))


class TestAnnotations:
    def test_videos_are_sorted_and_unique(self) -> None:
        videos = tuple(Video(id=name, path=Path(name)) for name in ("b", "a"))
        with pytest.raises(ValueError, match="sorted"):
            Annotations(videos=videos, class_names=())
        with pytest.raises(ValueError, match="sorted"):
            Annotations(videos=(videos[0], videos[0]), class_names=())

    @pytest.mark.parametrize("label", [-1, 1])
    def test_labels_are_indices(self, label: int) -> None:
        with pytest.raises(ValueError, match="index"):
            Annotations(videos=(Video(id="a", path=Path("a"), labels=(label,)),), class_names=("only",))


class TestRequireLabels:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (("1.mp4", "2.mp4"), "the videos have no labels"),
            (("a/1.mp4", "a/2.mp4"), "all labelled videos are of the one class 'a'"),
            (("a/1.mp4", "a/2.mp4", "3.mp4"), "all labelled videos are of the one class 'a'"),
            (("a/1.mp4", "a/2.mp4", "b/3.mp4"), "class 'b' has a single video"),
            (("a/1.mp4", "c/2.mp4", "b/3.mp4"), "class 'a' (and 2 more classes) has a single video"),
            (("train/a/1.mp4", "train/a/2.mp4", "train/b/3.mp4"), "class 'b' has a single video"),
        ],
    )
    def test_refused(self, tmp_path: Path, names: tuple[str, ...], expected: str) -> None:
        assert expected in refused(require_labels, read_folder(root=touch(tmp_path, *names)))

    @pytest.mark.parametrize(
        "names",
        [
            ("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.mp4"),
            ("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.mp4", "unlabelled.mp4"),
            ("train/a/1.mp4", "train/b/1.mp4", "test/a/2.mp4"),  # a given split needs no two videos of each class
        ],
    )
    def test_accepted(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        require_labels(read_folder(root=touch(tmp_path, *names)))


class TestRealData:
    def read(self, data_root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Annotations:
        monkeypatch.setenv("DYNAPROP_DATA", str(data_root))
        return read_annotations(load_catalog(REPOSITORY / "catalog.yaml").dataset(name))

    def test_ut_interaction(self, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        annotations = self.read(data_root, "ut-interaction", monkeypatch)
        assert annotations.class_names == ("handshake", "hug", "kick", "point", "punch", "push")
        assert len(annotations.videos) == 120 and annotations.missing == ()
        assert {video.group for video in annotations.videos} == {str(number) for number in range(1, 21)}
        # The published test part is sequences 8-10 and 18-20.
        test = {video.group for video in annotations.videos if video.split == "test"}
        assert test == {"8", "9", "10", "18", "19", "20"}
        for video in annotations.videos:  # the folder and the file's last number say the class too
            assert video.id.split("/")[0] == annotations.class_names[video.labels[0]]
            assert video.labels == (int(video.path.stem.rsplit("_", 1)[1]),)

    def test_weizmann(self, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        annotations = self.read(data_root, "weizmann", monkeypatch)
        assert len(annotations.class_names) == 10 and len(annotations.videos) == 90
        people = Counter(video.group for video in annotations.videos)
        names = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")
        assert people == dict.fromkeys(names, 10)
        assert annotations.held_out_part is None
