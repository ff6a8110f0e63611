"""Transcoding a dataset: what is done is not done again, and what is not whole does not count."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynaprop.pipeline.annotations import Annotations, Video, read_annotations
from dynaprop.pipeline.catalog.catalog import folder_dataset
from dynaprop.pipeline.copies.dataset import annotations_of_copies, copies_folder
from dynaprop.pipeline.copies.names import copy_path
from dynaprop.pipeline.copies.table import Copy, CopyTable
from dynaprop.pipeline.copies.transcoding import Transcoding, TranscodingSummary
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.identity import FileIdentity, file_identity
from dynaprop.pipeline.video.probe import probe_video
from tests.conftest import REPOSITORY
from tests.pipeline.coded_frames import encode
from tests.pipeline.videos import write_video


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of three videos."""
    root = tmp_path / "videos"
    for index, name in enumerate(("a/0", "a/1", "a/2", "b/0", "b/1", "b/2")):
        write_video(root / f"{name}.mp4", frames=20 + index, seed=index)
    return root


def transcode(root: Path, home: Path, **options) -> tuple[TranscodingSummary, int]:
    """Transcode a folder of videos; the summary, and how many videos a copy was begun of."""
    spec = folder_dataset(root)
    options = {"short_side": 16, "workers": 1, "deadline": 20} | options
    with Transcoding(dataset=spec, annotations=lambda: read_annotations(spec), home=home, **options) as transcoding:
        transcoding.run(transcoding.to_do())
        return transcoding.summary(), transcoding.transcoded


def copies_of(root: Path, home: Path) -> Annotations:
    spec = folder_dataset(root)
    table = CopyTable.load(copies_folder(spec, 16, home))
    return annotations_of_copies(read_annotations(spec), table, target=str(root), short_side=16)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and bytes of every copy."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*.mp4"))
    }


def touch_later(path: Path) -> None:
    """Give a file a time that it has not had."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_copies_table_and_what_they_are_used_as(root, tmp_path):
    summary, begun = transcode(root, tmp_path)
    assert (summary.videos, summary.made, summary.found, summary.there, begun) == (6, 6, 0, 0, 6)
    assert summary.failed == {}
    folder = tmp_path / "transcoded" / folder_dataset(root).name / "16p"
    assert summary.folder == folder
    original, copies = read_annotations(folder_dataset(root)), copies_of(root, tmp_path)
    assert [video.path for video in copies.videos] == [folder / f"{video.id}.mp4" for video in original.videos]
    for video, copy in zip(original.videos, copies.videos, strict=True):
        assert (copy.id, copy.labels, copy.split, copy.group) == (video.id, video.labels, video.split, video.group)
    assert (copies.class_names, copies.absent) == (original.class_names, ())
    table = pd.read_parquet(folder / "copies.parquet").set_index("video_id")
    assert list(table.index) == sorted(video.id for video in original.videos)
    for video, copy in zip(original.videos, copies.videos, strict=True):
        row = table.loc[video.id]
        for path, what in ((video.path, "original"), (copy.path, "copy")):
            identity = file_identity(path)
            assert (row[f"{what}_size"], row[f"{what}_mtime_ns"], row[f"{what}_ctime_ns"]) == identity.stamp
            assert row[f"{what}_content"] == identity.content
        probe = probe_video(copy.path)
        assert (row["n_frames"], row["width"], row["height"]) == (probe.n_frames, 22, 16)
        assert row["duration"] == probe.duration
        assert 0 < row["seconds"] < 60
    assert table["status"].eq("ok").all()
    assert table["error_kind"].isna().all()
    assert summary.original_bytes == table["original_size"].sum()
    assert summary.copy_bytes == table["copy_size"].sum() == sum(path.stat().st_size for path in folder.rglob("*.mp4"))


def test_a_second_run_does_nothing_and_a_change_one_video(root, tmp_path):
    first, _ = transcode(root, tmp_path)
    before = state(first.folder)
    table = (first.folder / "copies.parquet").stat().st_mtime_ns
    again, begun = transcode(root, tmp_path)
    assert (again.there, again.made, begun) == (6, 0, 0)
    assert state(first.folder) == before
    assert (first.folder / "copies.parquet").stat().st_mtime_ns == table
    touch_later(root / "a" / "0.mp4")  # the same content
    assert transcode(root, tmp_path)[1] == 0
    assert len(copies_of(root, tmp_path).videos) == 6

    write_video(root / "a" / "1.mp4", frames=33)
    write_video(root / "c" / "0.mp4")
    with pytest.raises(
        DynapropError, match=r"2 of 7 videos have no copy of short side 16 yet, a/1.mp4 first; transcode "
    ):
        copies_of(root, tmp_path)
    third, begun = transcode(root, tmp_path)
    assert (third.there, third.made, begun) == (5, 2, 2)
    assert probe_video(first.folder / "a" / "1.mp4.mp4").n_frames == 33
    after = state(first.folder)
    assert {name for name in before if before[name] != after[name]} == {"a/1.mp4.mp4"}
    assert len(copies_of(root, tmp_path).videos) == 7


def test_damaged_videos_fail_and_the_rest_goes_on(root, tmp_path):
    whole = (root / "a" / "1.mp4").read_bytes()
    data = bytearray(whole)
    middle = data.find(b"mdat") + 300
    data[middle : middle + 600] = bytes(600)
    (root / "a" / "1.mp4").write_bytes(data)
    (root / "b" / "text.mp4").write_text("no video")
    summary, begun = transcode(root, tmp_path)
    assert (summary.videos, summary.made) == (7, 5)
    assert {video: error.kind for video, error in summary.failed.items()} == {
        "a/1.mp4": "missing_frames",
        "b/text.mp4": "unreadable",
    }
    assert summary.kinds == {"missing_frames": 1, "unreadable": 1}
    assert len(list(summary.folder.rglob("*.mp4"))) == 5
    copies = copies_of(root, tmp_path)
    assert len(copies.videos) == 5
    assert copies.missing == ("a/1.mp4", "b/text.mp4")  # as a listed video that is not on disk
    assert all(video.labels for video in copies.absent)
    again, begun_again = transcode(root, tmp_path)
    assert (again.there, set(again.failed)) == (5, set(summary.failed))
    assert begun_again == begun - 5  # those that failed are tried again

    (root / "a" / "1.mp4").write_bytes(whole)
    healed, _ = transcode(root, tmp_path)
    assert (healed.made, list(healed.failed)) == (1, ["b/text.mp4"])
    (root / "a" / "1.mp4").write_bytes(data)
    hurt, _ = transcode(root, tmp_path)
    assert "a/1.mp4" in hurt.failed
    assert not (hurt.folder / "a" / "1.mp4.mp4").exists()  # the copy of what it was


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_copy_that_is_no_longer_whole_is_noticed(damage, root, tmp_path):
    summary, _ = transcode(root, tmp_path)
    before = state(summary.folder)
    copy = summary.folder / "b" / "2.mp4.mp4"
    if damage == "cut":
        copy.write_bytes(copy.read_bytes()[:-100])
    else:
        copy.unlink()
    with pytest.raises(DynapropError, match=r"1 of 6 videos have no copy of short side 16 yet, b/2.mp4 first"):
        copies_of(root, tmp_path)
    again, begun = transcode(root, tmp_path)
    assert (again.there, again.made, begun) == (5, 1, 1)
    after = state(summary.folder)
    assert [name for name in before if before[name] != after[name]] == ["b/2.mp4.mp4"]
    assert before["b/2.mp4.mp4"][1] == after["b/2.mp4.mp4"][1]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1" * 100)])
def test_copies_without_a_table_are_verified_and_kept(damage, root, tmp_path):
    summary, _ = transcode(root, tmp_path)
    before = state(summary.folder)
    damage(summary.folder / "copies.parquet")
    cut = summary.folder / "a" / "2.mp4.mp4"
    cut.write_bytes(cut.read_bytes()[:-100])
    # The same frames at the same times as before, in other colours.
    write_video(root / "b" / "0.mp4", frames=23, seed=99)
    notes = []
    again, begun = transcode(root, tmp_path, on_note=notes.append)
    assert (again.found, again.made, again.there, begun) == (4, 2, 0, 2)
    after = state(summary.folder)
    assert {name for name in before if before[name][0] != after[name][0]} == {"a/2.mp4.mp4", "b/0.mp4.mp4"}
    assert before["b/0.mp4.mp4"][1] != after["b/0.mp4.mp4"][1]
    assert len(copies_of(root, tmp_path).videos) == 6
    assert len(notes) == ("PAR1" in str(damage.__code__.co_consts))


KILLED = """
import sys
from pathlib import Path
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.catalog import folder_dataset
from dynaprop.pipeline.copies.transcoding import Transcoding
root, home = map(Path, sys.argv[1:])
spec = folder_dataset(root)
with Transcoding(dataset=spec, annotations=read_annotations(spec), home=home, short_side=16, workers=1) as transcoding:
    transcoding.run(transcoding.to_do())
"""


def test_killed_in_the_middle(tmp_path):
    """What a killed run has renamed is kept, what it was writing is not; in the end all is as if undisturbed."""
    root = tmp_path / "videos"
    for index in range(8):
        write_video(root / "a" / f"{index}.mp4", frames=150, seed=index % 2)
    undisturbed, _ = transcode(root, tmp_path / "undisturbed")
    folder = copies_folder(folder_dataset(root), 16, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    end = time.monotonic() + 60
    while len(list(folder.rglob("*.mp4"))) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = state(folder)
    assert 2 <= len(kept) < 8
    for name, (_, data) in kept.items():
        assert data == (undisturbed.folder / name).read_bytes()
    (folder / "a" / ".x.mp4.0.partial").write_bytes(b"half")
    with pytest.raises(DynapropError, match="8 of 8 videos have no copy"):
        copies_of(root, tmp_path)
    summary, begun = transcode(root, tmp_path)
    assert (summary.found, summary.made) == (len(kept), 8 - len(kept))
    assert begun == 8 - len(kept)
    after = state(folder)
    assert {name: after[name] for name in kept} == kept
    assert {name: data for name, (_, data) in after.items()} == {
        name: data for name, (_, data) in state(undisturbed.folder).items()
    }
    assert not list(folder.rglob("*.partial"))


def test_a_disk_that_takes_nothing_is_not_the_videos_fault(tmp_path):
    """A limit on the size of files stands for a full disk; what was copied before is kept."""
    root = tmp_path / "videos"
    write_video(root / "a" / "0.mp4", frames=20)
    encode(root / "a" / "1.mp4", size=(160, 120))  # under noise
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(DynapropError, match=r"1.mp4.mp4 cannot be written: File too large; make room"):
            transcode(root, tmp_path, short_side=120)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    folder = copies_folder(folder_dataset(root), 120, tmp_path)
    assert list(CopyTable.load(folder).copies) == ["a/0.mp4"]
    assert [path.name for path in folder.rglob("*.mp4")] == ["0.mp4.mp4"]
    assert not list(folder.rglob("*.partial"))
    summary, begun = transcode(root, tmp_path, short_side=120)
    assert (summary.there, summary.made, begun) == (1, 1, 1)


def test_one_at_a_time(root, tmp_path):
    folder = copies_folder(folder_dataset(root), 16, tmp_path)
    with (
        StoreLock(LocalLockRecord(folder), name=str(folder)),
        pytest.raises(DynapropError, match=r"16p is in use by process .* give wait=True"),
    ):
        transcode(root, tmp_path)
    assert transcode(root, tmp_path)[0].made == 6


@pytest.mark.parametrize("short_side", [0, 15, -2])
def test_short_side(short_side, root, tmp_path):
    with pytest.raises(UsageError, match="give an even number"):
        transcode(root, tmp_path, short_side=short_side)


def test_folders_of_pictures_are_refused(tmp_path):
    frames = FrameFolder(template="{:05d}.jpg", first=1, fps=25)
    annotations = Annotations((Video("v", tmp_path, (0,), frames=frames),), ("a",))
    spec = folder_dataset(tmp_path)
    with (
        Transcoding(dataset=spec, annotations=annotations, home=tmp_path, target="birds") as transcoding,
        pytest.raises(UsageError, match="birds: v is a folder of pictures, which need no transcoding"),
    ):
        transcoding.to_do()
    with pytest.raises(UsageError, match="birds: v is a folder of pictures"):
        annotations_of_copies(annotations, CopyTable(tmp_path), target="birds", short_side=256)


def test_absent_videos_stay_absent_and_all_failed_is_an_error(tmp_path):
    source = write_video(tmp_path / "a.mp4")
    failed = Copy("a", file_identity(source), "a.mp4", error_kind="timeout", error_detail="so slow")
    table = CopyTable(tmp_path / "copies", [failed])
    annotations = Annotations((Video("a", source),), (), absent=(Video("b", tmp_path / "b.mp4"),))
    with pytest.raises(
        DynapropError, match="none of the 1 videos of birds could be copied; to see why, transcode 'birds'"
    ):
        annotations_of_copies(annotations, table, target="birds", short_side=256)
    made = write_video(tmp_path / "copies" / "a.mp4")
    table.put(Copy("a", file_identity(source), "a.mp4", file_identity(made)))
    copies = annotations_of_copies(annotations, table, target="birds", short_side=256)
    assert [video.path for video in copies.videos] == [made]
    assert copies.absent == (Video("b", tmp_path / "copies" / "b.mp4"),)


def test_table_survives_the_disk(tmp_path):
    there = FileIdentity(1, 2**62, "c")
    copies = [
        Copy("a", there, copy_path("a"), there, 3, 0.5, 22, 16, 0.1),
        Copy("ü", there, copy_path("ü"), error_kind="crash"),
    ]
    CopyTable(tmp_path, copies).save()
    assert CopyTable.load(tmp_path).copies == {copy.video_id: copy for copy in copies}
    assert CopyTable.load(tmp_path / "nowhere").copies == {}
    table = pd.read_parquet(tmp_path / "copies.parquet")
    table.drop(columns="copy_size").to_parquet(tmp_path / "copies.parquet")
    with pytest.raises(ValueError, match="has no column 'copy_size'"):
        CopyTable.load(tmp_path)
    table.assign(path="/etc/passwd").to_parquet(tmp_path / "copies.parquet")
    with pytest.raises(ValueError, match="a copy lies elsewhere: /etc/passwd"):
        CopyTable.load(tmp_path)
    table.assign(video_id=None).to_parquet(tmp_path / "copies.parquet")
    with pytest.raises(ValueError, match="NoneType"):
        CopyTable.load(tmp_path)
    table.assign(more=1).to_parquet(tmp_path / "copies.parquet")
    assert len(CopyTable.load(tmp_path).copies) == 2


IDS = st.text("ab./%2E- \nmp4\0é\u0301\udcff")


@given(st.lists(IDS | st.text(min_size=100, max_size=400), min_size=2, max_size=2, unique=True))
def test_copies_lie_below_their_folder_each_in_its_own_place(ids):
    first, second = (PurePosixPath(copy_path(video_id)) for video_id in ids)
    assert first != second
    assert first not in second.parents
    for path, video_id in ((first, ids[0]), (second, ids[1])):
        assert len(path.parts) == video_id.count("/") + 1  # neither absolute nor with an empty part
        assert not {".", ".."} & set(path.parts)
        assert path.name.endswith(".mp4")
        assert all("." not in part for part in path.parts[:-1])
        assert max(len(part.encode()) for part in path.parts) < 200
        assert path.as_posix().isprintable()


def test_ordinary_ids_are_legible():
    assert copy_path("boxing/set1_3.avi") == "boxing/set1_3.avi.mp4"
    assert copy_path("v_-abc_123") == "v_-abc_123.mp4"
    assert copy_path("動画 (1)/v1.0/a'b.mp4") == "動画 (1)/v1%2E0/a'b.mp4.mp4"
    assert copy_path("../x") == "%2E%2E/x.mp4"
    assert copy_path("/etc/x") == "%/etc/x.mp4"
    assert re.fullmatch(r"x+%[0-9a-f]{32}\.mp4", copy_path("x" * 250))
