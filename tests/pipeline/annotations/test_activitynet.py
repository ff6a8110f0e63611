"""ActivityNet's json: subsets, labels, files, and refusals with their place."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynaprop.pipeline.annotations import Annotations, require_labels, require_videos
from dynaprop.pipeline.annotations.activitynet import read_activitynet
from dynaprop.pipeline.errors import UsageError
from tests.pipeline.label_files import BOM, everything, facts, found, refused, touch, write


def entry(subset: str, *labels: str) -> dict[str, Any]:
    annotations = [{"segment": [0.0, 1.0], "label": label} for label in labels]
    return {"duration": 9.5, "subset": subset, "url": "https://example.org", "annotations": annotations}


SMALL = {
    "QOlSCBRmfWY": entry("training", "Zumba", "Archery", "Zumba"),
    "-xyz_1": entry("training", "Archery"),
    "b": entry("validation", "Zumba"),
    "c": entry("testing"),
}


def activitynet(root: Path, database: Any = None, **keys: Any) -> Annotations:
    document = {"version": "VERSION 1.3", "taxonomy": [], "database": SMALL if database is None else database}
    write(root, "labels.json", json.dumps(document, indent=1))
    return read_activitynet(root=root, file=Path("labels.json"), **keys)


class TestActivityNet:
    def test_subsets_and_labels(self, tmp_path: Path) -> None:
        annotations = activitynet(touch(tmp_path, "v_QOlSCBRmfWY.mp4", "v_-xyz_1.mkv", "v_b.webm", "v_c.mp4"))
        assert annotations.class_names == ("Archery", "Zumba")
        assert facts(annotations) == {
            "v_QOlSCBRmfWY": ("train", ["Zumba", "Archery"]),  # each once, the first is trained on
            "v_-xyz_1": ("train", ["Archery"]),
            "v_b": ("val", ["Zumba"]),
            "v_c": ("test", []),
        }
        assert annotations.held_out_part == "val"
        assert all(video.frames is None for video in annotations.videos)

    def test_files_anywhere_with_any_extension(self, tmp_path: Path) -> None:
        touch(
            tmp_path, "train/v_QOlSCBRmfWY.MKV", "train/deep/-xyz_1.webm", "val/b.mp4", "other/v_unlisted.mp4", "c.txt"
        )
        annotations = activitynet(tmp_path)
        assert found(annotations, tmp_path) == {
            "v_QOlSCBRmfWY": "train/v_QOlSCBRmfWY.MKV",
            "v_-xyz_1": "train/deep/-xyz_1.webm",
            "v_b": "val/b.mp4",
        }
        assert annotations.missing == ("v_c",)

    def test_no_file_on_disk_still_reads(self, tmp_path: Path) -> None:
        annotations = activitynet(tmp_path)
        assert annotations.videos == ()
        assert annotations.missing == ("v_-xyz_1", "v_QOlSCBRmfWY", "v_b", "v_c")
        assert [video.split for video in annotations.absent] == ["train", "train", "val", "test"]
        for function in (require_videos, require_labels):
            message = refused(function, annotations)
            assert message.startswith(f"none of the 4 listed videos is on disk: no video for {tmp_path / 'v_-xyz_1'}")

    def test_class_list(self, tmp_path: Path) -> None:
        write(tmp_path, "classes.txt", "Zumba\nUnused class\nArchery\n")
        annotations = activitynet(tmp_path, classes=Path("classes.txt"))
        assert annotations.class_names == ("Zumba", "Unused class", "Archery")
        assert everything(annotations)["v_QOlSCBRmfWY"].labels == (0, 2)

    def test_label_outside_the_class_list(self, tmp_path: Path) -> None:
        write(tmp_path, "classes.txt", "Zumba\nArcheri\n")
        message = refused(activitynet, tmp_path, classes=Path("classes.txt"))
        line = (tmp_path / "labels.json").read_text().split("\n").index('  "QOlSCBRmfWY": {') + 1
        assert message.startswith(f"{tmp_path / 'labels.json'}:{line}: video 'QOlSCBRmfWY': no class 'Archery' in ")
        assert message.endswith("classes.txt (did you mean 'Archeri'?)")

    @pytest.mark.parametrize("names", [("v_b.mp4", "v_b.mkv"), ("train/v_b.mp4", "val/v_b.mp4"), ("b.mp4", "v_b.mp4")])
    def test_two_files_for_one_id(self, tmp_path: Path, names: tuple[str, str]) -> None:
        message = refused(activitynet, touch(tmp_path, *names))
        assert message.startswith(f"{tmp_path / 'labels.json'}: 'v_b' has two files below {tmp_path}, ")
        assert all(repr(name) in message for name in names)

    def test_one_file_for_two_ids(self, tmp_path: Path) -> None:
        database = SMALL | {"v_b": entry("training", "Zumba")}
        message = refused(activitynet, touch(tmp_path, "v_b.mp4"), database)
        assert f"{tmp_path / 'v_b.mp4'} would be both 'v_v_b' and 'v_b'" in message

    def test_unicode_and_spaces(self, tmp_path: Path) -> None:
        # The file name has its accents apart, as macOS writes them.
        database = SMALL | {"caf\u00e9 1": entry("training", "Tai chi, \u592a\u6781")}
        annotations = activitynet(touch(tmp_path, "v_cafe\u0301 1.mp4"), database)
        assert facts(annotations) == {"v_caf\u00e9 1": ("train", ["Tai chi, \u592a\u6781"])}
        assert annotations.videos[0].path.is_file()

    def test_links(self, tmp_path: Path) -> None:
        touch(tmp_path, "root/real/b.mp4", "outside/v_c.mp4")
        (tmp_path / "root/v_QOlSCBRmfWY.mp4").symlink_to("gone.mp4")
        assert found(activitynet(tmp_path / "root"), tmp_path / "root") == {"v_b": "real/b.mp4"}
        (tmp_path / "root/v_c.mp4").symlink_to(tmp_path / "outside/v_c.mp4")
        assert "this link leaves the dataset's folder" in refused(activitynet, tmp_path / "root")

    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    def test_windows_file(self, tmp_path: Path, ending: str) -> None:
        text = json.dumps({"database": SMALL}, indent=1).replace("\n", ending)
        write(tmp_path, "labels.json", BOM + text.encode())
        assert len(read_activitynet(root=tmp_path, file=Path("labels.json")).missing) == 4

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b'{"database": {\n "a": {]', ":2: is not json ("),
            (b"", ":1: is not json ("),
            (b'{"database": ' + b"[" * 100_000, ": is not json that can be read"),
            (b'{"database": ' + b"1" * 5000 + b"}", ": is not json that can be read"),
            (b"[1, 2]", ": is not ActivityNet's json"),
            (b'{"images": [], "categories": []}', ": is not ActivityNet's json"),
            (b'{"database": [1]}', ": is not ActivityNet's json"),
            (b'{"database": {}}', ": no videos are listed"),
            (b'{"database": {"a":\n 3}}', ":1: video 'a': 'subset' should be training, validation, testing, not None"),
            (b'{"database": {\n"a": {"subset": "trainin"}}}', ":2: video 'a': 'subset' should be"),
            (b'{"database": {\n"a": {"subset": "trainin"}}}', "(did you mean 'training'?)"),
            (b'{"database": {"a": {"subset": ""}}}', "not ''"),
            (b'{"database": {"a": {"subset": ["training"]}}}', "not ['training']"),
            (b'{"database": {"a": {"subset": "training", "annotations": 3}}}', "'annotations' should be a list"),
            (b'{"database": {"a": {"subset": "training", "annotations": [{}]}}}', "should have a 'label'"),
            (b'{"database": {"a": {"subset": "training", "annotations": [{"label": " "}]}}}', "should have a 'label'"),
            (
                b'{"database": {"a": {"subset": "training", "annotations": [{"label": "\\ud800C"}]}}}',
                "holds characters that cannot be shown",
            ),
            (b'{"database": {"a/b": {"subset": "training"}}}', "'a/b' is no video id"),
            (b'{"database": {"../b": {"subset": "training"}}}', "'../b' is no video id"),
            (b'{"database": {"a\\nb": {"subset": "training"}}}', "'a\\nb' is no video id"),
            (b'{"database": {"\\ud800": {"subset": "training"}}}', "'\\ud800' is no video id"),
            (b'{"database": {"": {"subset": "training"}}}', "'' is no video id"),
            (b'{"database": {\n"a": {"subset": "testing"},\n"a": {"subset": "training"}}}', ":3: 'a' is there twice"),
            (b'{"database": {"a": {"subset": "validation"}}}', "the subset 'training' is empty"),
            (b'{"database": {"a": {"subset": "training"}}}', "the subset 'validation' is empty"),
            (b"\xff\xfe{", ": is not UTF-8 text"),
        ],
    )
    def test_wrong_file(self, tmp_path: Path, content: bytes, expected: str) -> None:
        file = write(tmp_path, "labels.json", content)
        message = refused(read_activitynet, root=tmp_path, file=Path("labels.json"))
        assert message.startswith(str(file))
        assert expected in message

    def test_missing_file(self, tmp_path: Path) -> None:
        message = refused(read_activitynet, root=tmp_path, file=Path("labels.json"))
        assert message.startswith(f"{tmp_path / 'labels.json'}: cannot be read (No such file or directory)")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
    @given(
        database=st.dictionaries(
            st.text(max_size=4),
            st.fixed_dictionaries(
                {"subset": st.sampled_from(["training", "validation", "testing", "x"])},
                optional={"annotations": st.lists(st.dictionaries(st.just("label"), st.text(max_size=3)), max_size=2)},
            )
            | st.none(),
            max_size=4,
        )
    )
    def test_any_database_is_read_or_refused_in_one_line(self, tmp_path: Path, database: Any) -> None:
        try:
            annotations = activitynet(tmp_path, database)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert len(annotations.missing) == len(database)
