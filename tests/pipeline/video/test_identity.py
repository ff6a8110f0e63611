"""A video that is not the one that was read is read again, whatever its size, ends and times say; no other one is."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.catalog import folder_dataset
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.copies.dataset import annotations_of_copies, copies_folder
from dynaprop.pipeline.copies.table import CopyTable
from dynaprop.pipeline.copies.transcoding import Transcoding
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.video.identity import ContentHash, FileIdentity, Source, file_identity, identify_all
from tests.pipeline.changed_middle import earlier_content, known_contents, make_earlier, repaint, write_raw

BACKBONE = BackboneSpec(name="s", model="test_efficientnet", size=64, weights="random")


@pytest.fixture(scope="session")
def real_videos(data_root) -> list[Path]:
    return sorted((data_root / "weizmann").rglob("*.avi"))[:3]


@pytest.fixture
def dataset(tmp_path, real_videos) -> DatasetSpec:
    for number, video in enumerate(real_videos):
        write_raw(video, tmp_path / "videos" / "class" / f"{number}.avi")
    return DatasetSpec(name="real", root=tmp_path / "videos", min_clips=8, max_clips=16, shard_rows=16)


def open_work(dataset: DatasetSpec, home: Path, **options) -> Extraction:
    annotations = read_annotations(dataset)
    options = {"device": "cpu", "workers": 1} | options
    return Extraction(dataset=dataset, annotations=annotations, backbones=[BACKBONE], home=home, **options)


def extract(dataset: DatasetSpec, home: Path) -> int:
    """Extract what there is to do; how many videos were decoded."""
    with open_work(dataset, home) as work:
        work.extract_shards(work.plan(work.changes()).shards)
        return work.summary().decoded


def features(dataset: DatasetSpec, home: Path) -> dict[str, bytes]:
    """Features of every video, by id."""
    store = open_store(dataset, home, read_only=True)
    (key,) = store.keys()
    current = store.manifest().current()
    rows = store.ledger(key).read().merge(current[["video_id", "shard", "row"]], on=["video_id", "shard", "row"])
    assert (rows["status"] == "ok").all()
    assert len(rows) == len(current)
    return {
        row.video_id: store.read_shard(key, row.shard)[row.row % store.shard_rows :][: row.n_clips].tobytes()
        for row in rows.itertuples()
    }


class Reading:
    """Counts what is read again."""

    def __init__(self) -> None:
        self.asked, self.read = [], 0

    @contextmanager
    def __call__(self, size):
        self.asked.append(size)

        def count(n_bytes):
            self.read += n_bytes

        yield count


def is_untouched(dataset: DatasetSpec, home: Path) -> bool:
    """Whether the next plan finds nothing to do, and reads nothing."""
    reading = Reading()
    with open_work(dataset, home) as work:
        return not work.changes(hashing=reading) and not reading.asked


class TestExtraction:
    @pytest.mark.parametrize("keep_time", [True, False])
    def test_a_changed_middle_is_decoded_again_and_its_features_are_right(self, keep_time, dataset, tmp_path):
        assert extract(dataset, tmp_path) == 3
        before = features(dataset, tmp_path)
        repaint(dataset.root / "class" / "1.avi", keep_time=keep_time)
        assert extract(dataset, tmp_path) == 1
        after, fresh = features(dataset, tmp_path), tmp_path / "fresh"
        assert extract(dataset, fresh) == 3
        assert after == features(dataset, fresh)
        assert [video for video in before if before[video] != after[video]] == ["class/1.avi"]
        assert is_untouched(dataset, tmp_path)

    def test_what_is_touched_moved_or_restored_is_read_once_and_kept(self, dataset, tmp_path):
        extract(dataset, tmp_path)
        folder, before = dataset.root / "class", features(dataset, tmp_path)
        contents = known_contents(open_store(dataset, tmp_path))
        os.utime(folder / "0.avi", ns=(1, 10**18))
        (folder / "1.avi").chmod(0o600)  # the status alone
        shutil.copy2(folder / "2.avi", tmp_path / "backup")  # restored, at the time that it had
        (folder / "2.avi").unlink()
        (tmp_path / "backup").rename(folder / "2.avi")
        size, reading = sum(path.stat().st_size for path in folder.iterdir()), Reading()
        with open_work(dataset, tmp_path) as work:
            changes = work.changes(hashing=reading)
            assert (reading.asked, reading.read) == ([size], size)
            assert [video for video, _ in changes.touched] == ["class/0.avi", "class/1.avi", "class/2.avi"]
            assert not work.plan(changes).shards
            assert (changes.n_probes, changes.removed, work.summary().decoded) == (0, (), 0)
        assert is_untouched(dataset, tmp_path)
        assert features(dataset, tmp_path) == before
        assert known_contents(open_store(dataset, tmp_path)) == contents

    def test_a_dry_run_notes_nothing(self, dataset, tmp_path):
        extract(dataset, tmp_path)
        os.utime(dataset.root / "class" / "0.avi")
        manifest = (tmp_path / "stores" / "real").rglob("manifest.parquet")
        before = {path: path.read_bytes() for path in manifest}
        with open_work(dataset, tmp_path, dry_run=True) as work:
            assert len(work.changes().touched) == 1
            work.plan(work.changes(), save=False)
        assert before == {path: path.read_bytes() for path in before}

    @pytest.mark.parametrize("keep_time", [True, False])
    def test_a_video_that_changes_between_probe_and_decoding_is_noticed(self, keep_time, dataset, tmp_path):
        with open_work(dataset, tmp_path) as work:
            plan = work.plan(work.changes())
            repaint(dataset.root / "class" / "1.avi", keep_time=keep_time)
            os.utime(dataset.root / "class" / "2.avi")
            work.extract_shards(plan.shards)
            assert {video: error.kind for video, error in work.summary().failed.items()} == {"class/1.avi": "changed"}
        assert extract(dataset, tmp_path) == 1
        assert extract(dataset, tmp_path / "fresh") == 3
        assert features(dataset, tmp_path) == features(dataset, tmp_path / "fresh")

    def test_files_that_are_no_videos_are_looked_at_again_and_not_read(self, dataset, tmp_path):
        bad = dataset.root / "class" / "bad.avi"
        bad.write_bytes(b"no video" * 2**18)
        extract(dataset, tmp_path)
        assert is_untouched(dataset, tmp_path)
        os.utime(bad)
        reading = Reading()
        with open_work(dataset, tmp_path) as work:
            changes = work.changes(hashing=reading)
        assert ([video.id for video in changes.to_probe], reading.asked) == (["class/bad.avi"], [])

    def test_the_same_file_twice_has_one_content(self, dataset, tmp_path):
        shutil.copy(dataset.root / "class" / "0.avi", dataset.root / "class" / "again.avi")
        (dataset.root / "class" / "bad.avi").write_bytes(b"no video")
        extract(dataset, tmp_path)
        contents = known_contents(open_store(dataset, tmp_path))
        assert sorted(contents) == [f"class/{name}.avi" for name in ("0", "1", "2", "again")]
        assert contents["class/0.avi"] == contents["class/again.avi"]
        assert len(set(contents.values())) == 3


class TestEarlierStores:
    @pytest.fixture
    def earlier(self, dataset, tmp_path) -> Path:
        """Its manifest."""
        extract(dataset, tmp_path)
        manifest = open_store(dataset, tmp_path).manifest_path
        make_earlier(manifest, dataset.root)
        return manifest

    def test_they_are_believed_by_size_and_time(self, earlier, dataset, tmp_path):
        (dataset.root / "class" / "1.avi").chmod(0o600)
        assert is_untouched(dataset, tmp_path)
        assert extract(dataset, tmp_path) == 0
        assert known_contents(open_store(dataset, tmp_path)) == {}

    def test_what_has_another_time_is_extracted_again(self, earlier, dataset, tmp_path):
        """Nobody can tell whether it is the same: here it is not."""
        repaint(dataset.root / "class" / "1.avi", keep_time=False)
        assert earlier_content(dataset.root / "class" / "1.avi") in _contents(earlier)
        with open_work(dataset, tmp_path) as work:
            assert work.changes().in_doubt == ("class/1.avi",)
        assert extract(dataset, tmp_path) == 1
        assert extract(dataset, tmp_path / "fresh") == 3
        assert features(dataset, tmp_path) == features(dataset, tmp_path / "fresh")
        assert list(known_contents(open_store(dataset, tmp_path))) == ["class/1.avi"]
        os.utime(dataset.root / "class" / "1.avi")  # what is known now tells
        assert extract(dataset, tmp_path) == 0


def _contents(manifest: Path) -> list[str]:
    return list(pd.read_parquet(manifest)["content"])


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("f") / "f"
    path.write_bytes(np.random.default_rng(0).bytes(5 * 2**20 + 17))
    return path


class TestContent:
    def test_the_hash_behind_the_demuxer_is_that_of_the_file(self, data_root, dataset, tmp_path):
        """Of containers with their index at the head, at the tail or nowhere, with packets of two streams."""
        paths = [*sorted((data_root / "odd-videos").glob("*.*"))[:40], *dataset.root.rglob("*.avi")]
        seen = set()
        for by_decoding in (False, True):
            with DecodePool(workers=2, deadline=30, in_full=by_decoding) as pool:
                for path, probe in zip(paths, pool.probe(map(str, paths)), strict=True):
                    if hasattr(probe, "content"):
                        seen.add(path.suffix)
                        assert probe.content == f"xxh3:{xxhash.xxh3_128_hexdigest(path.read_bytes())}", path
        assert {".avi", ".mp4"} <= seen

    def test_a_file_that_changes_while_it_is_read_has_none(self, tmp_path):
        path = tmp_path / "v"
        path.write_bytes(bytes(3 * 2**20))

        def write(_):
            with path.open("r+b") as file:
                file.write(b"x")

        assert file_identity(path).is_whole
        assert file_identity(path, write).content == ""

    @given(positions=st.lists(st.integers(-1, 2**23)))
    def test_it_may_follow_anybody(self, file, positions):
        with ContentHash(file) as content:
            for position in positions:
                content.follow(position)
                assert content._read <= max(0, position, *positions)
            assert content.finish() == f"xxh3:{xxhash.xxh3_128_hexdigest(file.read_bytes())}"

    def test_sources_are_read_side_by_side_and_in_order(self, tmp_path):
        paths = [tmp_path / str(number) for number in range(20)]
        for number, path in enumerate(paths):
            path.write_bytes(bytes([number]) * (2**20 * (number % 3)))
        paths[7].unlink()
        sources, reading = [Source(path) for path in paths], Reading()
        found = list(identify_all([(source, source.stamp()) for source in sources], hashing=reading))
        assert found == [source.identity() for source in sources]
        assert found[7] == FileIdentity(-1, -1, "")
        assert reading.read == sum(path.stat().st_size for path in paths if path.exists())


class TestCopies:
    @pytest.fixture
    def root(self, dataset) -> Path:
        return dataset.root

    def transcode(self, root: Path, home: Path) -> int:
        """Videos that a copy was begun of."""
        spec = folder_dataset(root)
        with Transcoding(
            dataset=spec, annotations=lambda: read_annotations(spec), home=home, short_side=32, workers=1
        ) as transcoding:
            transcoding.run(transcoding.to_do())
            assert not transcoding.summary().failed
            return transcoding.transcoded

    def read(self, root: Path, home: Path) -> tuple[int, Reading]:
        """Use the copies: how many there are, and what was read for it."""
        spec, reading = folder_dataset(root), Reading()
        table = CopyTable.load(copies_folder(spec, 32, home))
        options = {"target": "real", "short_side": 32, "hashing": reading}
        return len(annotations_of_copies(read_annotations(spec), table, **options).videos), reading

    @pytest.mark.parametrize("keep_time", [True, False])
    def test_an_original_with_another_middle_is_copied_again(self, keep_time, root, tmp_path):
        assert self.transcode(root, tmp_path) == 3
        copy = copies_folder(folder_dataset(root), 32, tmp_path) / "class" / "1.avi.mp4"
        before = _mean(copy)
        repaint(root / "class" / "1.avi", keep_time=keep_time)
        with pytest.raises(DynapropError, match=r"1 of 3 videos have no copy .* class/1\.avi first"):
            self.read(root, tmp_path)
        assert self.transcode(root, tmp_path) == 1
        assert abs(_mean(copy) - before) > 5
        assert self.read(root, tmp_path)[0] == 3

    def test_a_copy_with_another_middle_is_made_again(self, root, tmp_path):
        self.transcode(root, tmp_path)
        copy = copies_folder(folder_dataset(root), 32, tmp_path) / "class" / "1.avi.mp4"
        good, status = copy.read_bytes(), copy.stat()
        data = bytearray(good)
        data[len(data) // 2] ^= 255
        copy.write_bytes(data)
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(DynapropError, match=r"1 of 3 videos have no copy .* class/1\.avi first"):
            self.read(root, tmp_path)

    @pytest.mark.parametrize("locked", [False, True])
    def test_what_is_touched_is_read_once_by_whoever_comes_first(self, locked, root, tmp_path):
        self.transcode(root, tmp_path)
        folder = copies_folder(folder_dataset(root), 32, tmp_path)
        touched = [root / "class" / "0.avi", folder / "class" / "2.avi.mp4"]
        for path in touched:
            os.utime(path)
        size = sum(path.stat().st_size for path in touched)
        lock = StoreLock(LocalLockRecord(folder), name="x")
        if locked:  # somebody transcodes: what was learnt cannot be noted
            with lock:
                found, reading = self.read(root, tmp_path)
            assert (found, reading.asked) == (3, [size])
        found, reading = self.read(root, tmp_path)
        assert (found, reading.asked, reading.read) == (3, [size], size)
        found, reading = self.read(root, tmp_path)
        assert (found, reading.asked) == (3, [])
        assert self.transcode(root, tmp_path) == 0

    def test_tables_of_earlier_versions_are_believed(self, root, tmp_path):
        self.transcode(root, tmp_path)
        folder = copies_folder(folder_dataset(root), 32, tmp_path)
        table = pd.read_parquet(folder / "copies.parquet").drop(columns=["original_ctime_ns", "copy_ctime_ns"])
        table["original_content"] = [earlier_content(root / video) for video in table["video_id"]]
        table["copy_content"] = [earlier_content(folder / path) for path in table["path"]]
        table.to_parquet(folder / "copies.parquet")
        os.utime(folder / "class" / "0.avi.mp4")  # only its size counted
        found, reading = self.read(root, tmp_path)
        assert (found, reading.asked) == (3, [])
        assert self.transcode(root, tmp_path) == 0
        os.utime(root / "class" / "1.avi")  # nobody can tell whether it is the same
        with pytest.raises(DynapropError, match=r"1 of 3 videos have no copy"):
            self.read(root, tmp_path)
        self.transcode(root, tmp_path)
        known = pd.read_parquet(folder / "copies.parquet").set_index("video_id")["original_content"]
        assert [video for video in known.index if known[video].startswith("xxh3:")] == ["class/1.avi"]
        os.utime(root / "class" / "1.avi")
        assert self.transcode(root, tmp_path) == 0


def _mean(path: Path) -> float:
    with av.open(str(path)) as video:
        return float(np.mean([frame.to_ndarray(format="gray").mean() for frame in video.decode(video=0)]))
