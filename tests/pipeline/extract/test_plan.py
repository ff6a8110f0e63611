"""The manifest follows the disk: absent videos, frame folders that change, files that move."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.extract.apply import apply_changes
from dynaprop.pipeline.extract.changes import Changes, compare
from dynaprop.pipeline.store.manifest import ABSENT, Manifest
from dynaprop.pipeline.store.packing import NO_SHARD
from dynaprop.pipeline.store.recorded import frame_folder
from dynaprop.pipeline.video.frame_folder import FrameFolder
from tests.pipeline.video.test_frame_folder import grey, write_frames
from tests.pipeline.videos import write_video

FRAMES = FrameFolder(template="{:03d}.png", first=1, fps=10.0)


@pytest.fixture
def pool():
    with DecodePool(workers=1, deadline=20) as pool:
        yield pool


def follow(
    manifest: Manifest, root: Path, pool: DecodePool, videos: list[Video], absent: list[Video] | None = None
) -> tuple[Changes, Manifest]:
    """One round; the manifest passes through its file, and a second round must find nothing to do."""
    changes = compare(manifest, videos, root=root, absent=absent or [])
    *_, manifest = apply_changes(manifest, changes, pool=pool, root=root, clip_seconds=1.0, min_clips=4, max_clips=16)
    manifest.save(root / "manifest.parquet")
    manifest = Manifest.load(root / "manifest.parquet", shard_rows=50)
    assert not compare(manifest, videos, root=root, absent=absent or [])
    return changes, manifest


def kinds(manifest: Manifest) -> dict[str, str | None]:
    current = manifest.current()
    assert current["video_id"].is_unique
    return {row.video_id: None if pd.isna(row.error_kind) else str(row.error_kind) for row in current.itertuples()}


def ids(videos: tuple[Video, ...]) -> list[str]:
    return [video.id for video in videos]


class TestAbsent:
    def test_it_comes_goes_and_comes_back(self, tmp_path, pool):
        a, b = (Video(id=name, path=tmp_path / "v" / f"{name}.mp4") for name in "ab")
        write_video(a.path)
        manifest = Manifest.empty(shard_rows=50)
        changes, manifest = follow(manifest, tmp_path, pool, [a], [b])
        assert (ids(changes.to_probe), ids(changes.absent), changes.removed) == (["a"], ["b"], ())
        assert kinds(manifest) == {"a": None, "b": ABSENT}
        (row,) = manifest.absent().itertuples()
        assert (row.path, row.size, row.shard, row.row, row.n_clips) == ("v/b.mp4", -1, NO_SHARD, NO_SHARD, 0)
        assert manifest.shards() == [0]

        write_video(b.path, seed=1)
        changes, manifest = follow(manifest, tmp_path, pool, [a, b])
        assert (ids(changes.to_probe), changes.absent, changes.removed) == (["b"], (), ("b",))
        assert kinds(manifest) == {"a": None, "b": None}
        assert manifest.shards() == [0, 1]

        a.path.unlink()
        changes, manifest = follow(manifest, tmp_path, pool, [b], [a])
        assert (changes.to_probe, ids(changes.absent), changes.removed) == ((), ["a"], ("a",))
        assert kinds(manifest) == {"a": ABSENT, "b": None}
        assert manifest.shards() == [1]
        assert manifest.table["removed"].tolist() == [True, False, False]  # of a, which owned rows; b and a now

        changes, manifest = follow(manifest, tmp_path, pool, [b])
        assert changes == Changes((), ("a",))  # no longer listed
        assert kinds(manifest) == {"b": None}

    def test_a_file_that_failed_and_then_went_is_absent(self, tmp_path, pool):
        video = Video(id="x", path=tmp_path / "x.mp4")
        video.path.write_bytes(b"no video")
        _, manifest = follow(Manifest.empty(shard_rows=50), tmp_path, pool, [video])
        assert kinds(manifest) == {"x": "unreadable"}
        video.path.unlink()
        _, manifest = follow(manifest, tmp_path, pool, [], [video])
        assert kinds(manifest) == {"x": ABSENT}

    def test_ten_thousand_cost_little(self, tmp_path, pool):
        """Well below a second on an idle machine; the bound only tells a quadratic loop."""
        absent = [Video(id=f"v_{number:05d}", path=tmp_path / f"v_{number:05d}.mp4") for number in range(10_000)]
        began = time.perf_counter()
        changes = compare(Manifest.empty(shard_rows=50), [], root=tmp_path, absent=absent)
        (manifest,) = apply_changes(
            Manifest.empty(shard_rows=50), changes, pool=pool, root=tmp_path, clip_seconds=1, min_clips=1, max_clips=9
        )
        again = compare(manifest, [], root=tmp_path, absent=absent)
        assert time.perf_counter() - began < 10
        assert len(manifest.absent()) == 10_000
        assert not again


def shares(manifest: Manifest) -> list[float]:
    return list(manifest.current()["share"])


class TestFrameFolder:
    @pytest.fixture
    def video(self, tmp_path) -> Video:
        write_frames(tmp_path / "v", FRAMES, grey(20))
        return Video(id="v", path=tmp_path / "v", frames=FRAMES)

    @pytest.fixture
    def manifest(self, tmp_path, pool, video) -> Manifest:
        changes, manifest = follow(Manifest.empty(shard_rows=50), tmp_path, pool, [video])
        assert ids(changes.to_probe) == ["v"]
        return manifest

    def test_the_row_says_how_to_decode(self, manifest):
        (row,) = manifest.shard(0).to_dict("records")
        assert frame_folder(row) == FRAMES
        assert (row["path"], row["decoder"], row["n_frames"], row["estimated"]) == ("v", "frames", 20, True)
        np.testing.assert_array_equal(row["timestamps"], [0, 0.5, 1, 1.5])

    def test_every_field_survives_the_file(self, tmp_path, pool, manifest, video):
        announced = replace(video, frames=replace(FRAMES, n_frames=17, fps=1 / 3))
        write_video(tmp_path / "f.mp4")
        changes, manifest = follow(manifest, tmp_path, pool, [announced, Video(id="f", path=tmp_path / "f.mp4")])
        assert ids(changes.to_probe) == ["v", "f"]
        folders = {row["video_id"]: frame_folder(row) for row in manifest.current().to_dict("records")}
        assert folders == {"v": announced.frames, "f": None}

    @pytest.mark.parametrize("change", [{"fps": 12.5}, {"n_frames": 17}, {"first": 2}, {"template": "{:03}.png"}])
    def test_a_change_of_the_catalog_is_a_change_of_the_video(self, tmp_path, manifest, video, change):
        """Other times are other clips."""
        changed = replace(video, frames=replace(FRAMES, **change))
        assert ids(compare(manifest, [changed], root=tmp_path).to_probe) == ["v"]

    def test_a_change_of_the_pictures_is_seen(self, tmp_path, manifest, video):
        last = video.path / "020.png"
        Image.new("RGB", (9, 9)).save(last)
        assert compare(manifest, [video], root=tmp_path).removed == ("v",)
        last.unlink()
        assert compare(manifest, [video], root=tmp_path).removed == ("v",)

    def test_touching_is_no_change(self, tmp_path, pool, manifest, video):
        for path in (video.path, video.path / "001.png", video.path / "020.png"):
            path.touch()
        (video.path / "thumbs.db").touch()
        changes, after = follow(manifest, tmp_path, pool, [video])
        assert [name for name, _ in changes.touched] == ["v"]
        assert not replace(changes, touched=())
        assert after.table["content"].equals(manifest.table["content"])

    @pytest.mark.parametrize("how", ["in place", "renamed over"])
    @pytest.mark.parametrize("clip", range(4))
    def test_any_picture_that_a_clip_shows_counts(self, how, clip, tmp_path, manifest, video):
        """Overwritten by another of the same size, its modification time, and the folder's, put back."""
        (row,) = manifest.shard(0).to_dict("records")
        picture = video.path / FRAMES.name(1 + int(row["frames"][clip]))
        before = {path: path.stat() for path in (video.path, picture)}
        data = bytearray(picture.read_bytes())
        data[-20] ^= 1
        if how == "in place":
            picture.write_bytes(data)
        else:
            (tmp_path / "new.png").write_bytes(data)
            (tmp_path / "new.png").rename(picture)
        for path, status in before.items():
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert ids(compare(manifest, [video], root=tmp_path).to_probe) == ["v"]

    def test_pictures_that_come_while_the_folder_is_probed_make_it_another(self, tmp_path, pool, video):
        class Growing:
            def probe(self, paths, folders):
                for answer in pool.probe(paths, folders):
                    write_frames(video.path, FRAMES, grey(23))
                    yield answer

        empty = Manifest.empty(shard_rows=50)
        grid = {"clip_seconds": 1.0, "min_clips": 4, "max_clips": 16}
        changes = compare(empty, [video], root=tmp_path)
        *_, manifest = apply_changes(empty, changes, pool=Growing(), root=tmp_path, **grid)
        assert manifest.table["n_frames"].tolist() == [20]
        assert ids(compare(manifest, [video], root=tmp_path).to_probe) == ["v"]

    def test_a_gap_that_is_filled_is_tried_again(self, tmp_path, pool, video):
        picture = (video.path / "005.png").read_bytes()
        (video.path / "005.png").unlink()
        _, manifest = follow(Manifest.empty(shard_rows=50), tmp_path, pool, [video])
        assert shares(manifest) == [0.95]
        (video.path / "005.png").write_bytes(picture)
        changes, manifest = follow(manifest, tmp_path, pool, [video])
        assert ids(changes.to_probe) == ["v"]
        assert shares(manifest) == [1.0]

    @pytest.mark.parametrize("missing", [["001.png"], ["020.png"], ["001.png", "011.png", "020.png"]])
    def test_a_gap_at_an_end_is_no_change_by_itself(self, tmp_path, pool, video, missing):
        """Size and time are those of the first and the last picture that are there."""
        video = replace(video, frames=replace(FRAMES, n_frames=20))
        for name in missing:
            (video.path / name).unlink()
        _, manifest = follow(Manifest.empty(shard_rows=50), tmp_path, pool, [video])
        assert shares(manifest) == [1 - len(missing) / 20]
        assert not compare(manifest, [video], root=tmp_path)
        (video.path / "002.png").unlink()
        assert compare(manifest, [video], root=tmp_path).removed == ("v",)

    def test_a_folder_where_a_file_was(self, tmp_path, pool, manifest):
        file = Video(id="v", path=write_video(tmp_path / "v.mp4"))
        changes, manifest = follow(manifest, tmp_path, pool, [file])
        assert (ids(changes.to_probe), changes.removed) == (["v"], ("v",))
        assert manifest.current()["picture_template"].isna().all()


def test_a_file_that_grows_while_it_is_probed_is_another_one_afterwards(tmp_path, pool):
    """A copy that goes on: what was seen is filed under what the file was before."""
    path = write_video(tmp_path / "a.mp4")
    video = Video(id="a", path=path)

    class Growing:
        def probe(self, paths, folders=None):
            for answer in pool.probe(paths, folders):
                with path.open("ab") as file:
                    file.write(b"more")
                yield answer

    changes = compare(Manifest.empty(shard_rows=20), [video], root=tmp_path)
    grid = {"clip_seconds": 1.0, "min_clips": 4, "max_clips": 8}
    *_, manifest = apply_changes(Manifest.empty(shard_rows=20), changes, pool=Growing(), root=tmp_path, **grid)
    assert compare(manifest, [video], root=tmp_path).to_probe == (video,)


def test_a_moved_file_keeps_its_rows(tmp_path, pool):
    """Where an id is not the path, another extension or folder is no other video."""
    video = Video(id="x", path=write_video(tmp_path / "x.mp4"))
    _, before = follow(Manifest.empty(shard_rows=50), tmp_path, pool, [video])
    moved = replace(video, path=tmp_path / "y.mkv")
    video.path.rename(moved.path)
    changes, after = follow(before, tmp_path, pool, [moved])
    assert (changes.to_probe, changes.removed, ids(changes.moved)) == ((), (), ["x"])
    assert after.table["path"].tolist() == ["y.mkv"]
    assert after.table[["row", "n_clips", "content"]].equals(before.table[["row", "n_clips", "content"]])


def test_a_manifest_from_before_frame_folders_is_read(tmp_path, pool):
    """Its table has no columns for pictures; its videos are the same, and it goes on growing."""
    videos = [Video(id=name, path=write_video(tmp_path / f"{name}.mp4", seed=len(name))) for name in ("a", "bb")]
    _, manifest = follow(Manifest.empty(shard_rows=50), tmp_path, pool, videos)
    columns = [name for name in manifest.table if not name.startswith("picture_")]
    assert len(columns) == len(manifest.table.columns) - 4
    manifest.table[columns].to_parquet(tmp_path / "manifest.parquet")
    old = Manifest.load(tmp_path / "manifest.parquet", shard_rows=50)
    assert not compare(old, videos, root=tmp_path)
    write_frames(tmp_path / "c", FRAMES, grey(20))
    changes, grown = follow(old, tmp_path, pool, [*videos, Video(id="c", path=tmp_path / "c", frames=FRAMES)])
    assert ids(changes.to_probe) == ["c"]
    assert [frame_folder(row) for row in grown.table.to_dict("records")] == [None, None, FRAMES]


def test_every_probed_video_is_told_and_time_makes_saves(tmp_path, pool, monkeypatch):
    videos = [Video(id=str(index), path=tmp_path / f"{index}.mp4") for index in range(3)]
    for video in videos:
        write_video(video.path)
    manifest = Manifest.empty(shard_rows=50)
    grid = {"pool": pool, "root": tmp_path, "clip_seconds": 1.0, "min_clips": 4, "max_clips": 16}
    told: list[None] = []
    *_, whole = apply_changes(
        manifest, compare(manifest, videos, root=tmp_path), **grid, on_video=lambda: told.append(None)
    )
    assert (len(whole.table), len(told)) == (3, 3)
    monkeypatch.setattr("dynaprop.pipeline.extract.apply._SECONDS_A_SAVE", 0)
    sizes = [len(each.table) for each in apply_changes(manifest, compare(manifest, videos, root=tmp_path), **grid)]
    assert sizes == [1, 2, 3]
