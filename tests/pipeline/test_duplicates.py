"""Files with the same content, and which of them lie on both sides of a split."""

import os
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest

from pipeline import duplicates
from pipeline.annotations import Annotations, Video
from pipeline.duplicates import contents_of, parts_of, same_files
from pipeline.files import file_identity
from pipeline.manifest import Manifest
from pipeline.splits import group_folds

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
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return [Video(id=name, path=tmp_path / name) for name in ("gone", "one", "two")]


def test_contents_of_files_that_the_manifest_knows_are_not_read(files):
    assert contents_of(files) == {name: file_identity(files[0].path.with_name(name)).content for name in ("one", "two")}
    table = Manifest.empty(shard_rows=10).table
    rows = []
    for video in files[1:]:
        status = video.path.stat()
        rows.append({"video_id": video.id, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "content": "known"})
    manifest = Manifest(pd.DataFrame(rows).reindex(columns=table.columns).assign(removed=False), shard_rows=10)
    assert contents_of(files, manifest) == {"one": "known", "two": "known"}
    os.utime(files[1].path, ns=(1, 1))
    assert contents_of(files, manifest) == {"one": file_identity(files[1].path).content, "two": "known"}
