"""Files with the same content, and which of them lie on both sides of a split."""

import os
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.annotations.splits import group_folds
from dynaprop.pipeline.store import duplicates
from dynaprop.pipeline.store.duplicates import contents_of, parts_of, same_files
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.video.identity import file_identity

CONTENTS = {"a": "1", "b": "2", "c": "1", "d": "1", "e": "2", "f": "3"}


def test_every_pair_of_the_same_content():
    found, count = same_files(CONTENTS)
    expected = {pair for pair in combinations("abcdef", 2) if CONTENTS[pair[0]] == CONTENTS[pair[1]]}
    assert {(one.first, one.second) for one in found} == expected
    assert count == len(expected) == 4


def test_across_a_split_the_training_video_comes_first():
    parts = {"a": 1, "b": 0, "c": 0, "e": 0, "f": 1}  # d is in neither part
    found, count = same_files(CONTENTS, parts)
    assert [(one.first, one.second) for one in found] == [("c", "a")]
    assert count == 1


def test_of_many_some_are_listed_and_all_counted(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_LISTED", 5)
    contents = {f"{number:03d}": "same" for number in range(100)}
    found, count = same_files(contents, {video: int(video) % 4 for video in contents})
    assert (len(found), count) == (5, 100 * 99 // 2 - 4 * (25 * 24 // 2))


def test_folds_are_parts():
    ids = [f"{label}{number}" for label in "ab" for number in range(6)]
    videos = tuple(Video(id=one, path=Path(one), labels=("ab".index(one[0]),)) for one in ids)
    annotations = Annotations(videos, ("a", "b"))
    folds = group_folds(annotations, 3)
    parts = parts_of(annotations, folds)
    for one, other in combinations(range(len(ids)), 2):
        across = any((one in fold.test) != (other in fold.test) for fold in folds)
        assert (parts[ids[one]] != parts[ids[other]]) == across


@pytest.fixture
def files(tmp_path) -> list[Video]:
    """Two of the same bytes, one as long, one of another length, one that is not there."""
    for name, content in {"one": b"1", "same": b"1", "as long": b"2", "longer": b"33"}.items():
        (tmp_path / name).write_bytes(content * 1000)
    return [Video(id=name, path=tmp_path / name) for name in ("as long", "gone", "longer", "one", "same")]


def manifest_of(videos: list[Video], content: str) -> Manifest:
    """One that says this of the content of all videos, as they are now."""
    rows = []
    for video in videos:
        status = video.path.stat()
        times = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
        rows.append({"video_id": video.id, "size": status.st_size, "content": content, **times})
    table = pd.DataFrame(rows).reindex(columns=Manifest.empty(shard_rows=10).table.columns)
    return Manifest(table.assign(removed=False), shard_rows=10)


def test_files_of_one_length_are_read_to_the_end(files):
    contents = contents_of(files)
    assert contents == {
        name: file_identity(files[0].path.with_name(name)).content for name in ("as long", "one", "same")
    }
    assert [(pair.first, pair.second) for pair in same_files(contents)[0]] == [("one", "same")]


def test_what_the_manifest_knows_is_not_read(files):
    known = [video for video in files if video.id in ("one", "same")]
    contents = contents_of(files, manifest_of(known, "xxh3:known"))
    assert contents["one"] == contents["same"] == "xxh3:known" != contents["as long"]
    os.utime(files[3].path, ns=(1, 1))
    assert contents_of(files, manifest_of(known[1:], "xxh3:known"))["one"] == file_identity(files[3].path).content


def test_what_earlier_versions_knew_of_head_and_tail_is_not_believed(files):
    old = manifest_of([video for video in files if video.id != "gone"], "0123456789abcdef" * 2)
    assert contents_of(files, old) == contents_of(files)
