"""Verify on a store written by hand: what counts as right, and what the deep check calls the same."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.clips import ClipGrid
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.deep_check import compare_features, sample_videos
from dynaprop.pipeline.store.checksum import checksum
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.ledger import LedgerRow
from dynaprop.pipeline.store.manifest import ProbedVideo
from dynaprop.pipeline.store.verify import verify_key
from dynaprop.pipeline.video.identity import FileIdentity
from dynaprop.pipeline.video.probe import Probe

KEY = FeatureKey(backbone="s", model="m", size=8, weights="w", mean=(0.0,) * 3, std=(1.0,) * 3)
ROWS, CHANNELS, CLIPS = 20, 4, 5


@dataclass
class Fixture:
    store: FeatureStore
    features: np.ndarray
    rows: list[LedgerRow]

    def publish(self) -> FeatureStore:
        self.store.write_shard(KEY.name, 0, self.features)
        self.store.ledger(KEY.name).publish(0, self.rows)
        return self.store

    def problems(self) -> list[str]:
        """Problems without the key and shard in front."""
        self.publish()
        return [line.partition(": ")[2] for line in verify_key(self.store, KEY.name).problems]

    def replace(self, index: int, **fields) -> None:
        row = {**vars(self.rows[index]), **fields}
        self.rows[index] = LedgerRow(**{**row, "timestamps": np.arange(row["n_clips"], dtype=float)})


def build(root: Path, *, content: str = "c") -> Fixture:
    """One shard: videos a, b and c of five clips each, and five rows that are nobody's."""
    store = FeatureStore(root, grid={"dataset": "d"}, shard_rows=ROWS)
    grid = ClipGrid(np.arange(CLIPS), np.arange(CLIPS, dtype=float))
    probe = Probe(grid.timestamps, 0.0, float(CLIPS), False, 64, 48, "h264", "mov,mp4", "decord")
    identity = FileIdentity(1, 2, content)
    manifest = store.manifest().extended([ProbedVideo(name, name, identity, probe, grid) for name in "abc"])
    manifest.save(store.manifest_path)
    attributes = {"model": "m", "size": 8, "precision": "fp32"}
    store.ensure_array(KEY, channels=CHANNELS, n_shards=1, attributes=attributes)
    features = np.full((ROWS, CHANNELS), np.nan, np.float16)
    features[: 3 * CLIPS] = np.random.default_rng(0).normal(size=(3 * CLIPS, CHANNELS))
    rows = [
        LedgerRow(
            video_id=name,
            size=1,
            mtime_ns=2,
            content="c",
            status="ok",
            error_kind=None,
            error_detail=None,
            shard=0,
            row=index * CLIPS,
            n_clips=CLIPS,
            n_missing=0,
            timestamps=grid.timestamps,
            timestamps_source="measured",
            checksum=checksum(features[index * CLIPS : (index + 1) * CLIPS]),
            decoder="decord",
            attempts=1,
            seconds=0.1,
        )
        for index, name in enumerate("abc")
    ]
    return Fixture(store, features, rows)


@pytest.fixture
def fixture(tmp_path) -> Fixture:
    return build(tmp_path / "store")


class TestVerify:
    def test_what_is_right(self, fixture):
        assert fixture.problems() == []
        check = verify_key(fixture.store, KEY.name)
        assert (check.shards, check.videos, check.unpublished, check.bad_shards) == (1, 3, 0, ())

    def test_a_partial_video_has_its_first_clips_and_nothing_behind_them(self, fixture):
        fixture.features[CLIPS + 3 : 2 * CLIPS] = np.nan
        digest = checksum(fixture.features[CLIPS : CLIPS + 3])
        fixture.replace(1, status="partial", n_clips=3, n_missing=2, checksum=digest)
        assert fixture.problems() == []
        fixture.features[CLIPS + 4] = 1
        assert fixture.problems() == ["b: there are features behind its last clip"]

    def test_a_whole_video_has_all_clips(self, fixture):
        fixture.replace(1, n_clips=3, checksum=checksum(fixture.features[CLIPS : CLIPS + 3]))
        assert fixture.problems()[0] == "b: 3 clips in the ledger, 5 in the manifest"
        fixture.replace(1, status="partial", n_clips=6, checksum=checksum(fixture.features[CLIPS : CLIPS + 6]))
        assert fixture.problems() == ["b: 6 clips in the ledger, 5 in the manifest"]

    def test_a_failed_video_has_no_features(self, fixture):
        fixture.replace(2, status="failed", checksum=None)
        assert fixture.problems() == ["c: a failed video has features"]
        fixture.features[2 * CLIPS : 3 * CLIPS] = np.nan
        assert fixture.problems() == []

    def test_a_feature_that_is_not_finite(self, fixture):
        fixture.features[1, 2] = np.inf
        assert fixture.problems() == ["a: a feature is not finite"]

    def test_a_video_that_the_ledger_lacks(self, fixture):
        del fixture.rows[0]
        assert fixture.problems() == ["a: in the manifest but not in the ledger"]

    def test_videos_and_times_that_the_manifest_does_not_know(self, fixture):
        fixture.rows.append(LedgerRow(**{**vars(fixture.rows[0]), "video_id": "d"}))
        late = LedgerRow(**{**vars(fixture.rows[1]), "timestamps": np.arange(CLIPS) + 0.5})
        fixture.rows[1] = late
        assert fixture.problems() == [
            "d: in the ledger at row 0 but not in the manifest",
            "b: other timestamps in the ledger than in the manifest",
        ]

    def test_a_ledger_that_makes_no_sense(self, fixture):
        store = fixture.publish()
        ledger = store.ledger(KEY.name)
        path = ledger.folder / "000000.parquet"
        good = pd.read_parquet(path)
        for column, value in (
            ("row", "x"),
            ("n_clips", None),
            ("shard", 1),
            ("status", "fine"),
            ("video_id", "a"),
            ("timestamps", None),
        ):
            good.assign(**{column: value}).to_parquet(path)
            with pytest.raises(DynapropError, match=r"000000.parquet makes no sense; verify and repair the dataset"):
                ledger.read_shard(0)
            assert verify_key(store, KEY.name).bad_shards == (0,)
        good.to_parquet(ledger.folder / "000001 (copy).parquet")
        assert ledger.published() == {0}

    def test_a_chunk_that_is_too_long(self, fixture):
        store = fixture.publish()
        with (store.root / "features.zarr" / KEY.name / "c" / "0" / "0").open("ab") as chunk:
            chunk.write(b"x")
        (problem,) = verify_key(store, KEY.name).problems
        assert problem == f"{KEY.name}, shard 0: its features take 161 bytes, which should be 160"

    def test_some_shards_alone_and_progress(self, fixture):
        store = fixture.publish()
        seen: list[int] = []
        assert verify_key(store, KEY.name, shards=[7], on_shard=lambda: seen.append(1)).shards == 0
        assert verify_key(store, KEY.name, shards=[0], on_shard=lambda: seen.append(1)).shards == 1
        assert seen == [1]


class TestDeepCheck:
    @pytest.fixture
    def second(self, tmp_path) -> Fixture:
        return build(tmp_path / "second")

    def compare(self, fixture: Fixture, second: Fixture):
        return compare_features(["a", "b", "c"], stored=fixture.publish(), second=second.publish(), keys=[KEY.name])

    def test_the_same_bytes(self, fixture, second):
        check = self.compare(fixture, second)
        assert (check.videos, check.clips, check.identical, check.cosine, check.problems) == (3, 15, 3, 1.0, {})

    def test_other_last_bits_are_no_problem(self, fixture, second):
        second.features[0, 0] = np.nextafter(second.features[0, 0], np.float16(9))
        check = self.compare(fixture, second)
        assert (check.identical, check.problems) == (2, {})
        assert 0.9999 < check.cosine < 1

    def test_another_direction_is(self, fixture, second):
        """Perpendicular: the cosine is 0."""
        fixture.features[7], second.features[7] = [1, 2, 0, 0], [-2, 1, 0, 0]
        check = self.compare(fixture, second)
        assert check.problems == {"b": f"{KEY.name}: clip 2 has a cosine of 0.0000 with its second"}
        assert (check.cosine, check.other_outcome) == (0.0, ())

    def test_zero_and_infinity(self, fixture, second):
        fixture.features[0] = second.features[0] = 0
        assert self.compare(fixture, second).identical == 3
        second.features[0] = 1
        assert set(self.compare(fixture, second).problems) == {"a"}
        second.features[0] = np.inf
        assert set(self.compare(fixture, second).problems) == {"a"}

    def test_other_bytes_are_what_was_read_and_not_what_could_not_be(self, tmp_path):
        stored = build(tmp_path / "stored", content="xxh3:1")
        other, unread = build(tmp_path / "other", content="xxh3:2"), build(tmp_path / "unread", content="")
        check = self.compare(stored, other)
        assert set(check.problems.values()) == {
            "its file has other bytes than were extracted, at the same size and times"
        }
        assert check.other_outcome == ("a", "b", "c")
        unread.replace(1, status="failed", error_kind="timeout")
        check = self.compare(stored, unread)
        assert check.problems == {"b": f"{KEY.name}: ok with 5 clips is stored, failed came out"}
        assert check.learnt == {}

    def test_another_outcome(self, fixture, second):
        fixture.replace(0, status="failed")
        second.replace(1, n_clips=4)
        del second.rows[2]  # no probe could read it
        check = self.compare(fixture, second)
        assert check.problems == {
            "a": f"{KEY.name}: failed is stored, ok with 5 clips came out",
            "b": f"{KEY.name}: ok with 5 clips is stored, ok with 4 clips came out",
            "c": f"{KEY.name}: ok with 5 clips is stored, failed came out",
        }
        assert check.other_outcome == ("a", "b", "c")

    def test_the_sample_is_the_seeds(self, fixture):
        store = fixture.store
        assert sample_videos(store, [KEY.name], count=9, seed=0) == []  # nothing is published yet
        fixture.publish()
        assert sample_videos(store, [KEY.name], count=9, seed=0) == ["a", "b", "c"]
        samples = {tuple(sample_videos(store, [KEY.name], count=1, seed=seed)) for seed in range(20)}
        assert samples == {("a",), ("b",), ("c",)}
        assert len({tuple(sample_videos(store, [KEY.name], count=2, seed=5)) for _ in range(5)}) == 1
