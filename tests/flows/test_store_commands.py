"""The command line on a store that is in use, damaged, or not as it should be."""

import os
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from dynaprop.pipeline.io import lock as lock_module
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.store.checksum import checksum
from dynaprop.pipeline.store.feature_store import FeatureStore
from tests.conftest import REPOSITORY
from tests.pipeline.changed_middle import known_contents, make_earlier
from tests.pipeline.io.test_lock import Clock
from tests.pipeline.videos import write_video


def words(text: str) -> str:
    return " ".join(text.split())


def store_folder(workplace):
    return workplace / "stores" / "tiny" / "clips-1s-min10-max20"


def test_a_store_in_use_is_refused_or_waited_for(dynaprop, workplace, monkeypatch):
    held = StoreLock(LocalLockRecord(store_folder(workplace)), name="x", beat_every=1e6)
    with held:
        refused = dynaprop("extract", "tiny")
        assert refused.code == 1
        assert re.search(r"error: .*clips-1s-min10-max20 is in use by process \d+ on .*add --wait", refused.err)
        assert dynaprop("extract", "tiny", "--dry-run").code == 0
        clock = Clock()
        clock.on_sleep = held.__exit__
        monkeypatch.setattr(lock_module, "time", clock)
        waited = dynaprop("run", "tiny", "--seeds", "1", "--wait")
    assert waited.code == 0, waited.err
    assert "clips-1s-min10-max20: waiting for process" in words(waited.err)
    assert "features: 15 of 15 videos" in waited.err
    assert not (store_folder(workplace) / "lock.json").exists()


class TestVerify:
    def test_deep_says_seed_bytes_and_cosine(self, dynaprop, workplace):
        assert dynaprop("extract", "tiny").code == 0
        deep = dynaprop("verify", "tiny", "--deep", "--sample", "5", "--seed", "3")
        assert deep.code == 0, deep.err
        found = re.search(
            r"deep check, sample of 5 videos, seed 3: (\d) of 5 byte for byte the same, "
            r"smallest cosine of 100 clips (\d\.\d+), 0 problems",
            deep.out,
        )
        assert found, deep.out
        assert float(found[2]) > 0.9999
        assert dynaprop("verify", "tiny", "--deep", "--sample", "5", "--seed", "3").out == deep.out

    def test_deep_finds_what_checksums_cannot_and_repair_recomputes_it(self, dynaprop, workplace):
        """A feature that was wrong before it was stored: chunk, checksum and ledger agree on it."""
        assert dynaprop("extract", "tiny").code == 0
        store = FeatureStore.existing(store_folder(workplace))
        _, key = sorted(store.keys())
        good = store.read_shard(key, 1)
        spoil(store, key, shard=1)
        assert dynaprop("verify", "tiny").code == 0
        deep = dynaprop("verify", "tiny", "--deep", "--sample", "15")
        assert deep.code == 1
        assert re.search(rf"  \S+\.mp4: {key}: clip 0 has a cosine of -?\d\.\d+ with its second", deep.out)
        assert "1 problems; run dynaprop verify tiny --repair" in words(deep.err)
        repaired = dynaprop("verify", "tiny", "--deep", "--sample", "15", "--repair")
        assert repaired.code == 0, repaired.err
        assert "repair: what was wrong is right now" in repaired.out
        np.testing.assert_array_equal(store.read_shard(key, 1), good)

    def test_deep_tells_a_file_that_is_gone_or_changed_from_a_wrong_feature(self, dynaprop, workplace):
        assert dynaprop("extract", "tiny").code == 0
        (workplace / "videos" / "a" / "1.mp4").unlink()
        write_video(workplace / "videos" / "b" / "2.mp4", frames=25, seed=99)
        (workplace / "videos" / "c" / "3.mp4").touch()  # the same content
        deep = dynaprop("verify", "tiny", "--deep", "--sample", "15")
        assert deep.code == 0, deep.err
        assert "not on disk any more, so not compared: 1 of the sample, a/1.mp4 first" in deep.out
        assert "changed on disk since, so not compared: 1 of the sample, b/2.mp4 first" in deep.out
        assert "of 13 byte for byte the same" in deep.out

    def test_deep_finds_bytes_that_changed_while_times_did_not(self, dynaprop, workplace):
        """As a disk does it: what the manifest noted of the file is not what is there."""
        assert dynaprop("extract", "tiny").code == 0
        path = store_folder(workplace) / "manifest.parquet"
        table = pd.read_parquet(path)
        row = table.index[table["video_id"] == "b/2.mp4"]
        right = table.loc[row, "content"].item()
        table.loc[row, "content"] = f"xxh3:{0:032x}"
        table.to_parquet(path)
        deep = dynaprop("verify", "tiny", "--deep", "--sample", "15")
        assert deep.code == 1
        assert "  b/2.mp4: its file has other bytes than were extracted, at the same size and times" in deep.out
        repaired = dynaprop("verify", "tiny", "--deep", "--sample", "15", "--repair")
        assert repaired.code == 0, repaired.err
        assert "repair: what was wrong is right now" in repaired.out
        assert known_contents(FeatureStore.existing(store_folder(workplace)))["b/2.mp4"] == right
        assert dynaprop("verify", "tiny", "--deep", "--sample", "15").code == 0

    def test_deep_learns_what_an_earlier_version_did_not_note(self, dynaprop, workplace):
        """Of the videos whose features are right, unless other recipes' features lie beside them."""
        assert dynaprop("extract", "tiny").code == 0
        contents = known_contents(FeatureStore.existing(store_folder(workplace)))
        make_earlier(store_folder(workplace) / "manifest.parquet", workplace / "videos")
        assert "decoded 0 videos" in words(dynaprop("extract", "tiny").err)
        (workplace / "videos" / "a" / "0.mp4").chmod(0o600)  # its time of change was not noted
        store = FeatureStore.existing(store_folder(workplace))
        assert known_contents(store) == {}
        spoil(store, sorted(store.keys())[1], shard=1)
        with StoreLock(LocalLockRecord(store_folder(workplace)), name="x"):
            held = dynaprop("verify", "tiny", "--deep", "--sample", "15")
        assert "what was learnt of 14 files could not be noted: " in words(held.out)
        deep = dynaprop("verify", "tiny", "--deep", "--sample", "15")
        assert deep.code == 1
        assert "14 videos were cached by an earlier version, which noted only parts of their files" in words(deep.out)
        learnt = known_contents(FeatureStore.existing(store_folder(workplace)))
        assert len(learnt) == 14
        assert learnt.items() <= contents.items()
        assert dynaprop("verify", "tiny", "--deep", "--sample", "15", "--repair").code == 0
        assert "1 videos were cached by an earlier" in words(dynaprop("verify", "tiny", "--deep", "--sample", "15").out)
        assert known_contents(FeatureStore.existing(store_folder(workplace))) == contents
        for path in sorted((workplace / "videos").rglob("*.mp4")):
            path.touch()
        touched = dynaprop("extract", "tiny")
        assert "15 videos have other times and the same bytes" in words(touched.err)
        assert "decoded 0 videos" in words(touched.err)

    def test_what_other_recipes_features_may_contradict_is_not_learnt(self, dynaprop, workplace):
        assert dynaprop("extract", "tiny").code == 0
        assert dynaprop("extract", "tiny", "--recipe", "other").code == 0
        make_earlier(store_folder(workplace) / "manifest.parquet", workplace / "videos")
        deep = dynaprop("verify", "tiny", "--deep", "--sample", "15")
        assert deep.code == 0
        assert "noted only parts" not in words(deep.out)
        (workplace / "videos" / "a" / "0.mp4").touch()
        again = words(dynaprop("extract", "tiny").err)
        assert "1 videos, a/0.mp4 first, have other times than an earlier version noted" in again
        assert "decoded 1 videos" in again

    def test_repair_recomputes_bad_shards_and_nothing_else(self, dynaprop, workplace):
        assert dynaprop("extract", "tiny").code == 0
        root = store_folder(workplace)
        store = FeatureStore.existing(root)
        student, teacher = sorted(store.keys())
        before = {(key, shard): store.read_shard(key, shard) for key in (student, teacher) for shard in range(4)}
        chunks = root / "features.zarr"
        (chunks / student / "c" / "0" / "0").unlink()
        (chunks / teacher / "c" / "1" / "0").write_bytes(b"short")
        (root / "ledger" / teacher / "000002.parquet").write_bytes(b"noise")
        (chunks / teacher / "c" / "3" / "0.abc.partial").touch()
        (root / ".manifest.parquet.x.partial").touch()
        good = (chunks / student / "c" / "1" / "0").stat().st_mtime_ns
        write_video(workplace / "videos" / "c" / "new.mp4")
        bad = dynaprop("verify", "tiny")
        assert bad.code == 1
        for problem in (
            rf"  {student}, shard 0: its features are gone\n",
            rf"  {teacher}, shard 1: its features take 5 bytes, which should be \d+,\d+\n",
            rf"  {teacher}, shard 2: its ledger cannot be read\n",
        ):
            assert re.search(problem, bad.out)
        assert "2 temporary files" in bad.out
        assert "3 problems; run dynaprop verify tiny --repair" in words(bad.err)
        repaired = dynaprop("verify", "tiny", "--repair", "--deep")
        assert repaired.code == 0, repaired.err
        assert "deep check, sample of 3 videos" in repaired.out  # of the last shard, the only one that is right
        assert "2 temporary files deleted" in repaired.out
        assert "repair: 12 videos in 3 shards recomputed" in repaired.out
        for place, features in before.items():
            np.testing.assert_array_equal(store.read_shard(*place), features)
        assert (chunks / student / "c" / "1" / "0").stat().st_mtime_ns == good
        assert not list(root.rglob("*.partial"))
        after = dynaprop("verify", "tiny")
        assert after.code == 0
        assert "0 shards not extracted" in after.out  # the new video is extract's business
        assert dynaprop("verify", "tiny", "--repair").code == 0

    def test_repair_when_a_file_of_a_bad_shard_has_changed_or_gone(self, dynaprop, workplace):
        assert dynaprop("extract", "tiny").code == 0
        next((store_folder(workplace) / "features.zarr").glob("*/c/0/0")).unlink()
        (workplace / "videos" / "a" / "0.mp4").unlink()
        write_video(workplace / "videos" / "a" / "1.mp4", frames=25, seed=99)
        repaired = dynaprop("verify", "tiny", "--repair")
        assert repaired.code == 0, repaired.err
        assert "not on disk any more, so not recomputed: 1 videos, a/0.mp4 first" in repaired.out
        assert "changed on disk, so extracted as they are now: 1 videos, a/1.mp4 first" in repaired.out
        assert dynaprop("verify", "tiny").code == 0

    def test_damaged_metadata_are_rebuilt_around_the_features(self, dynaprop, workplace, monkeypatch):
        """Even with another shard_rows in the catalog, and without a frame decoded."""
        assert dynaprop("extract", "tiny").code == 0
        catalog = workplace / "catalog.yaml"
        catalog.write_text(catalog.read_text().replace("shard_rows: 40", "shard_rows: 60"))
        path = store_folder(workplace) / "features.zarr"
        array = next(path.glob("test_resnet*/zarr.json"))
        for damaged, commands in (
            ([path / "zarr.json"], ["train"]),
            ([array], ["extract", "train"]),
            ([array, path / "zarr.json"], ["verify", "extract"]),
        ):
            for metadata in damaged:
                metadata.write_bytes(b"")
            for command in commands:
                failed = dynaprop(command, "tiny")
                assert failed.code == 1
                assert failed.err.count("error: ") == 1
                assert re.search(r"zarr.json is damaged; run `dynaprop verify TARGET --repair`", words(failed.err))
            assert "zarr.json is damaged" in dynaprop("datasets").err
            with monkeypatch.context() as patch:
                patch.setattr(
                    "dynaprop.pipeline.decoding.pool.DecodePool.__init__", lambda *_, **__: pytest.fail("decoded")
                )
                repaired = dynaprop("verify", "tiny", "--repair")
            assert repaired.code == 0, repaired.err
            assert "was damaged and is written anew" in repaired.out
            assert dynaprop("verify", "tiny").code == 0
        array.unlink()
        gone = dynaprop("extract", "tiny")
        assert gone.code == 1
        assert "is gone; run `dynaprop verify TARGET --repair`" in words(gone.err)
        assert dynaprop("verify", "tiny", "--repair").code == 0
        assert "0 problems" in dynaprop("verify", "tiny").out


def spoil(store: FeatureStore, key: str, *, shard: int) -> None:
    """Change the first feature of a shard, with the ledger's checksum."""
    ledger = store.ledger(key)
    rows = ledger.read_shard(shard)
    path = store.root / "features.zarr" / key / "c" / str(shard) / "0"
    features = np.fromfile(path, np.float16).reshape(store.shard_rows, -1)
    features[0] = features[0, ::-1]
    features.tofile(path)
    rows.loc[rows["row"] == shard * store.shard_rows, "checksum"] = checksum(features[: rows["n_clips"].iloc[0]])
    rows.to_parquet(ledger.folder / f"{shard:06d}.parquet", index=False)


def test_what_a_killed_extraction_leaves_is_taken_over_at_once(dynaprop, workplace):
    """Its lock and its temporary files."""
    for long in range(8):
        write_video(workplace / "videos" / "a" / f"long{long}.mp4", frames=200, size=(320, 240), seed=long)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dynaprop.flows.cli", "extract", "tiny"], stderr=subprocess.DEVNULL, env=environment
    )
    end = time.monotonic() + 200
    while not list(workplace.rglob("ledger/*/*.parquet")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    root = store_folder(workplace)
    assert (root / "lock.json").exists()
    stray = root / "ledger" / ".000009.parquet.x.partial"
    stray.touch()
    again = dynaprop("extract", "tiny")
    assert again.code == 0, again.err
    assert f"took over from process {process.pid} on " in words(again.err)
    assert "features: 23 of 23 videos" in again.err
    assert not stray.exists()
    assert dynaprop("verify", "tiny").code == 0


def test_garbage_collection_leaves_a_store_in_use_alone(dynaprop, workplace):
    assert dynaprop("extract", "tiny").code == 0
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("size: 64", "size: 80"))
    with StoreLock(LocalLockRecord(store_folder(workplace)), name="x"):
        refused = dynaprop("datasets", "--gc")
        assert refused.code == 1
        assert "is in use by process" in refused.err
        assert dynaprop("verify", "tiny", "--repair").code == 1
    assert "1 feature keys deleted" in dynaprop("datasets", "--gc").err


def test_what_only_reads_writes_nothing_into_the_store(dynaprop, workplace):
    """So a store on a read-only disk serves train, sweep, report and verify."""
    assert dynaprop("extract", "tiny").code == 0
    root = store_folder(workplace)

    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in (root, *root.rglob("*"))}

    before = state()
    for command in (
        ["train", "tiny"],
        ["sweep", "tiny", "--experiment", "few", "--seeds", "1"],
        ["report", "tiny"],
        ["verify", "tiny"],
        ["verify", "tiny", "--deep", "--sample", "2"],
        ["datasets"],
        ["extract", "tiny", "--dry-run"],
    ):
        outcome = dynaprop(*command)
        assert outcome.code == 0, outcome.err
        assert state() == before, command
