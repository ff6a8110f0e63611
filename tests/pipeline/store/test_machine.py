"""A state machine over the store: whatever is done to videos, recipes and files, and wherever a run dies, no reader
gets a wrong feature, nothing that is published is computed again, and every video is accounted for."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dynaprop.heads.features.loaded import load_features
from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.summary import ExtractionSummary
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.names import locate_backbone, open_store, store_path
from dynaprop.pipeline.store.verify import verify_key
from dynaprop.pipeline.video.identity import file_identity
from tests.pipeline.stand_ins import CHANNELS, Content, Killed, Mortal, StandInBackbone, StandInPool

BACKBONES = [
    BackboneSpec(name=f"b{size}", model="test_efficientnet", size=size, weights="random") for size in (2, 3, 4)
]
KEYS = {key.name: key for key, _ in map(locate_backbone, BACKBONES)}
FAILS_AS = {"probe": "unreadable", "decode": "decode", "passing": "decode", "infinite": "not_finite"}

number = st.integers(0, 999)
faults = st.sampled_from(["none", "none", "none", "none", "probe", "decode", "passing", "infinite"])


class StoreMachine(RuleBasedStateMachine):
    """The model is a dictionary of files; the store's own promises are checked against it after every step."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.home, self.root = self.folder / "home", self.folder / "videos"
        self.root.mkdir()
        self.dataset = DatasetSpec(name="machine", root=self.root, min_clips=4, max_clips=8, shard_rows=12)
        self.paths: dict[str, Path] = {}  # of every listed video, by id
        self.contents: dict[str, Content] = {}  # all that ever lay on disk, by the identity of the file
        self.pair = BACKBONES[:2]
        self.time = 0  # a clock of our own, since two changes may lie within one tick of the disk's
        self.trouble = self.was_trouble = False
        self.damaged: dict[tuple[str, int], str] = {}
        self.owners: dict[int, tuple[str, str]] = {}  # video and content of every row ever given
        self.published: dict[tuple[str, int], Any] = {}
        self.checked: Any = None
        self.patches = ExitStack()
        for target, stand_in in (
            ("dynaprop.pipeline.extract.dataset.DecodePool", lambda **_: StandInPool(trouble=self.trouble)),
            ("dynaprop.pipeline.backbones.timm_networks.channels", lambda *_: CHANNELS),
            ("dynaprop.pipeline.backbones.backbone.FrameBackbone", StandInBackbone),
            ("dynaprop.pipeline.backbones.timm_networks.gmacs_per_frame", lambda *_: 0.0),
            ("dynaprop.pipeline.extract.apply._VIDEOS_A_SAVE", 2),
        ):
            self.patches.enter_context(mock.patch(target, stand_in))

    def teardown(self) -> None:
        self.patches.close()
        shutil.rmtree(self.folder)

    @initialize(frames=st.lists(st.integers(1, 12), max_size=5))
    def begin(self, frames: list[int]) -> None:
        for count in frames:
            self.add_video(count, "none")

    # Videos.

    @rule(frames=st.integers(1, 12), fault=faults)
    def add_video(self, frames: int, fault: Any) -> None:
        video_id = f"v{self.time}"
        self.paths[video_id] = self.root / video_id
        self._write(video_id, frames, fault)

    @precondition(lambda self: self.paths)
    @rule(which=number, frames=st.integers(1, 12), fault=faults)
    def change_video(self, which: int, frames: int, fault: Any) -> None:
        """Or bring it, where it was absent."""
        self._write(self._pick(which), frames, fault)

    @precondition(lambda self: self._there())
    @rule(which=number)
    def touch_video(self, which: int) -> None:
        path = self._pick_path(which)
        self.time += 1
        Content.read(path).write(path, time=self.time)

    @precondition(lambda self: self._there())
    @rule(which=number)
    def lose_video(self, which: int) -> None:
        """It is still listed."""
        self._pick_path(which).unlink()

    @precondition(lambda self: self.paths)
    @rule(which=number)
    def remove_video(self, which: int) -> None:
        self.paths.pop(self._pick(which)).unlink(missing_ok=True)

    @precondition(lambda self: self._there())
    @rule(which=number)
    def move_video(self, which: int) -> None:
        """The same video by its id, at another place."""
        video_id = next(name for name, path in self.paths.items() if path == self._pick_path(which))
        self.time += 1
        self.paths[video_id] = self.paths[video_id].rename(self.root / f"moved{self.time}")

    @precondition(lambda self: self._there())
    @rule(which=number)
    def rename_video(self, which: int) -> None:
        """Another id: another video, as far as anybody knows."""
        path = self._pick_path(which)
        old = next(name for name in self.paths if self.paths[name] == path)
        self.time += 1
        self.paths[f"v{self.time}"] = self.paths.pop(old)

    @precondition(lambda self: len(self._there()) > 1)
    @rule(one=number, other=number)
    def swap_videos(self, one: int, other: int) -> None:
        first, second = self._pick_path(one), self._pick_path(other)
        if first != second:
            contents = Content.read(first), Content.read(second)
            self.time += 1
            contents[1].write(first, time=self.time)
            contents[0].write(second, time=self.time)

    # Runs.

    @rule(first=number, second=number)
    def choose_recipe(self, first: int, second: int) -> None:
        one, other = BACKBONES[first % 3], BACKBONES[second % 3]
        self.pair = [one] if one == other else [one, other]

    @precondition(lambda self: self.paths and "ledger" not in self.damaged.values())
    @rule(retry_failed=st.booleans(), trouble=st.booleans())
    def extract(self, retry_failed: bool, trouble: bool) -> None:
        """In times of trouble some videos fail that are all right."""
        self._trouble(trouble)
        if retry_failed:
            self._expect_retries()
        with Mortal(self.home):
            summary = self._extract(self.home, retry_failed=retry_failed)
        self._accounted(summary, retried=retry_failed and not trouble)

    @precondition(lambda self: self.paths and "ledger" not in self.damaged.values())
    @rule()
    def extract_twice(self) -> None:
        """The second time, whatever the labels are now, nothing is decoded, computed or written."""
        self.extract(retry_failed=False, trouble=False)
        files = self._files()
        summary = self._extract(self.home, label=1)
        assert (summary.decoded, summary.forwarded) == (0, 0)
        assert self._files() == files

    @precondition(lambda self: self.paths and "ledger" not in self.damaged.values())
    @rule(steps=st.integers(0, 150), torn=st.booleans(), retry_failed=st.booleans(), trouble=st.booleans())
    def die(self, steps: int, torn: bool, retry_failed: bool, trouble: bool) -> None:
        """The next extraction, with whatever happens before it, has to cope."""
        self._trouble(trouble)
        if retry_failed:
            self._expect_retries()
        self._die(steps, torn=torn, retry_failed=retry_failed)

    @precondition(lambda self: self.paths)
    @rule(places=st.lists(st.floats(0, 1), min_size=1, max_size=3), torn=st.booleans())
    def die_and_resume(self, places: list[float], torn: bool) -> None:
        """After any number of deaths the store is that of an extraction that was left alone."""
        if self.damaged:
            self.repair()
        twin = self.folder / "twin"
        if self.home.exists():
            shutil.copytree(self.home, twin)
        with Mortal(twin) as life:
            self._extract(twin)
        left = life.taken
        for place in places:
            steps = int(place * left)
            self._die(steps, torn=torn)
            left -= steps
            self.the_store_keeps_its_promises()
        with Mortal(self.home):
            self._accounted(self._extract(self.home))
        self._same(open_store(self.dataset, self.home), open_store(self.dataset, twin))
        shutil.rmtree(twin)

    @precondition(lambda self: self._keys())
    @rule(which=number, steps=st.none() | st.integers(0, 12))
    def collect_garbage(self, which: int, steps: int | None) -> None:
        """Delete a key, or die while doing so."""
        key = self._keys()[which % len(self._keys())]
        with suppress(Killed), Mortal(self.home, steps=steps):
            self._store().remove(key)
            assert key not in self._keys()
        left = self._store().ledger(key).published()
        self.damaged = {place: kind for place, kind in self.damaged.items() if place[0] != key or place[1] in left}
        self.published = {place: files for place, files in self.published.items() if place[0] != key}

    # Damage.

    @precondition(lambda self: self._good_rows())
    @rule(which=number, kind=st.sampled_from(["flip", "chunk", "ledger"]), byte=number)
    def damage(self, which: int, kind: str, byte: int) -> None:
        """A wrong byte of a feature, a lost chunk or a ledger cut short; `verify` finds it."""
        rows = self._good_rows()
        key, row = rows[which % len(rows)]
        store = self._store()
        chunk = store.root / "features.zarr" / key / "c" / str(row.shard) / "0"
        if kind == "flip":
            data = bytearray(chunk.read_bytes())
            first = row.row % store.shard_rows * CHANNELS * 2
            data[first + byte % (row.n_clips * CHANNELS * 2)] ^= 1 + byte % 255
            chunk.write_bytes(data)
        elif kind == "chunk":
            chunk.unlink()
        else:
            file = store.ledger(key).folder / f"{row.shard:06d}.parquet"
            file.write_bytes(file.read_bytes()[: file.stat().st_size * byte // 1000])
        self.damaged[key, row.shard] = kind
        self.published.pop((key, row.shard), None)
        assert verify_key(store, key).problems

    @precondition(lambda self: self._keys())
    @rule()
    def verify(self) -> None:
        """What is wrong is found, and nothing else."""
        for key in self._keys():
            problems = verify_key(self._store(), key).problems
            wrong = {shard for name, shard in self.damaged if name == key}
            assert {int(line.split("shard ")[1].split(":")[0]) for line in problems} == wrong, problems

    @precondition(lambda self: self.damaged)
    @rule()
    def repair(self) -> None:
        """Withdrawing and extracting anew cures everything."""
        for key in self._keys():
            for shard in verify_key(self._store(), key).bad_shards:
                self._store().ledger(key).withdraw(shard)
        self.damaged = {}
        if self.paths:
            self.extract(retry_failed=False, trouble=False)
        self.verify()

    # What always holds.

    @invariant()
    def the_store_keeps_its_promises(self) -> None:
        StoreMachine.steps += 1
        if self._is_made() and (state := self._files()) != self.checked:
            self._readers_get_the_right_features()
            self._no_row_is_given_twice()
            self._what_is_published_stays_as_it_is()
            self.checked = state

    def _readers_get_the_right_features(self) -> None:
        """A reader gets the features of the content that the manifest knows, or nothing, or a clear error."""
        current = self._store().manifest().current()
        content = dict(zip(current["video_id"], current["content"], strict=True))
        for key in self._keys():
            try:
                read = self._read(self._store(), key)
            except DynapropError as error:
                assert any(name == key for name, _ in self.damaged), error
                continue
            for video_id, (features, times) in read.items():
                source = self.contents[content[video_id]]
                assert source.fault in ("none", "passing")
                expected = np.stack([source.feature(int(time), KEYS[key]) for time in times])
                np.testing.assert_array_equal(features, expected)

    def _no_row_is_given_twice(self) -> None:
        """Neither to two current videos, nor to another one after its video is gone."""
        manifest = self._store().manifest()
        current = manifest.current()
        assert current["video_id"].is_unique
        assert len({row.row for row in current.itertuples() if row.n_clips}) == (current["n_clips"] > 0).sum()
        for row in manifest.table[manifest.table["n_clips"] > 0].itertuples():
            assert row.row // 12 == (row.row + row.n_clips - 1) // 12 == row.shard
            for place in range(row.row, row.row + row.n_clips):
                assert self.owners.setdefault(place, (row.video_id, row.content)) == (row.video_id, row.content)

    def _what_is_published_stays_as_it_is(self) -> None:
        """Not one byte is written again, not even the same."""
        now = {}
        for key in self._keys():
            ledger = self._store().ledger(key)
            for shard in ledger.published():
                if (key, shard) not in self.damaged:
                    chunk = self._store().root / "features.zarr" / key / "c" / str(shard) / "0"
                    now[key, shard] = _stamp(chunk), _stamp(ledger.folder / f"{shard:06d}.parquet")
        assert {place: now.get(place) for place in self.published} == self.published
        self.published = now

    # How it is done.

    def _extract(self, home: Path, *, retry_failed: bool = False, label: int = 0) -> ExtractionSummary:
        videos = [Video(id=name, path=path, labels=(label,)) for name, path in sorted(self.paths.items())]
        annotations = Annotations(
            videos=tuple(video for video in videos if video.path.exists()),
            class_names=("a", "b"),
            absent=tuple(video for video in videos if not video.path.exists()),
        )
        with Extraction(
            dataset=self.dataset, annotations=annotations, backbones=self.pair, home=home, device="cpu"
        ) as work:
            plan = work.plan(work.changes(retry_failed=retry_failed))
            work.extract_shards(plan.shards)
            return work.summary()

    def _trouble(self, trouble: bool) -> None:
        self.trouble = trouble
        self.was_trouble |= trouble

    def _expect_retries(self) -> None:
        """Shards whose videos all have failed may be computed again."""
        if not self._is_made():
            return
        manifest = self._store().manifest()
        for shard in manifest.shards():
            failed = set()
            for key in self._keys():
                if (key, shard) in self.published:
                    rows = self._store().ledger(key).read_shard(shard)
                    failed |= set(rows.loc[rows["status"] == "failed", "video_id"])
            if set(manifest.shard(shard)["video_id"]) <= failed:
                self.published = {place: files for place, files in self.published.items() if place[1] != shard}

    def _die(self, steps: int, *, torn: bool, retry_failed: bool = False) -> None:
        """Extract and die after so many steps, or come through where there are fewer."""
        with suppress(Killed), Mortal(self.home, steps=steps, torn=torn):
            self._extract(self.home, retry_failed=retry_failed)
        self._bury()

    def _bury(self) -> None:
        """It was this process that died: to whoever looks, its number now is that of one that was started later."""
        for record in self.home.rglob("lock.json"):
            record.write_text(json.dumps({**json.loads(record.read_text()), "started": "0"}))

    def _accounted(self, summary: ExtractionSummary, *, retried: bool = False) -> None:
        """Every listed video is usable, failed as it must, or absent; readers have the usable ones and no other."""
        there = {name: Content.read(path) for name, path in self.paths.items() if path.exists()}
        assert set(summary.absent) == self.paths.keys() - there.keys()
        certain = {name for name, content in there.items() if content.fault in ("probe", "decode", "infinite")}
        perhaps = {name for name, content in there.items() if content.fault == "passing" and self.was_trouble}
        assert certain <= summary.failed.keys() <= certain | (set() if retried else perhaps)
        assert all(summary.failed[name].kind == FAILS_AS[there[name].fault] for name in summary.failed)
        assert (summary.videos, summary.usable) == (len(there), len(there) - len(summary.failed))
        store = self._store()
        current = store.manifest().current().set_index("video_id")
        for name, content in there.items():
            if content.fault == "probe":  # what is no video is not read
                assert current["mtime_ns"][name] == self.paths[name].stat().st_mtime_ns
            else:
                assert self.contents[current["content"][name]] == content
        if not self.damaged:
            both = [set(self._read(store, key)) for key in summary.keys.values()]
            assert set.intersection(*both) == there.keys() - summary.failed.keys()

    def _read(self, store: FeatureStore, key: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Features and times of every video that readers get, by id."""
        ids = sorted({*self.paths, *store.manifest().current()["video_id"]})
        videos = [Video(id=video_id, path=Path(video_id)) for video_id in ids]
        split = load_features(store, videos, class_names=("a",), student_key=key, teacher_key=key).split
        spans = [slice(start, start + n) for start, n in zip(split.starts, split.n_clips, strict=True)]
        features = split.student.numpy()
        return {
            name: (features[span], split.timestamps[span]) for name, span in zip(split.video_ids, spans, strict=True)
        }

    def _same(self, one: FeatureStore, other: FeatureStore) -> None:
        """The same rows, the same bytes, and ledgers that differ in attempts and times at most."""
        pd.testing.assert_frame_equal(one.manifest().table, other.manifest().table)
        assert one.keys() == other.keys()
        for key in one.keys():  # noqa: SIM118
            assert one.ledger(key).published() == other.ledger(key).published()
            for shard in one.ledger(key).published():
                chunk = Path("features.zarr", key, "c", str(shard), "0")
                assert (one.root / chunk).read_bytes() == (other.root / chunk).read_bytes()
                ledgers = [store.ledger(key).read_shard(shard) for store in (one, other)]
                pd.testing.assert_frame_equal(*(ledger.drop(columns=["attempts", "seconds"]) for ledger in ledgers))

    def _good_rows(self) -> list[tuple[str, Any]]:
        """Key and ledger row of all videos with features in shards that are not damaged."""
        return [
            (key, row)
            for key in self._keys()
            for shard in sorted(self._store().ledger(key).published())
            if (key, shard) not in self.damaged
            for row in self._store().ledger(key).read_shard(shard).itertuples()
            if row.status == "ok"
        ]

    def _write(self, video_id: str, frames: int, fault: Any) -> None:
        self.time += 1
        content = Content(self.time, frames, fault)
        content.write(self.paths[video_id], time=self.time)
        self.contents[file_identity(self.paths[video_id]).content] = content

    def _pick(self, which: int) -> str:
        return sorted(self.paths)[which % len(self.paths)]

    def _there(self) -> list[Path]:
        return sorted(path for path in self.paths.values() if path.exists())

    def _pick_path(self, which: int) -> Path:
        return self._there()[which % len(self._there())]

    def _is_made(self) -> bool:
        return (store_path(self.dataset, self.home) / "features.zarr" / "zarr.json").exists()

    def _store(self) -> FeatureStore:
        return open_store(self.dataset, self.home)

    def _keys(self) -> list[str]:
        return sorted(self._store().keys()) if self._is_made() else []

    def _files(self) -> dict[str, Any]:
        return {str(path): _stamp(path) for path in _below(self.home)}


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=(Phase.reuse, Phase.generate),  # shrinking takes longer than a test may
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_sequence_of_steps_harms_the_store() -> None:
    run(examples=6, steps=12)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_thousand_steps_do_not_harm_the_store() -> None:
    StoreMachine.steps = 0
    while StoreMachine.steps < 2000:
        run(examples=20, steps=30)
