"""A network disk that does not answer for a while: neither absence nor damage, and worth another try."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from dynaprop.heads.features.loaded import load_features
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.ledger import Ledger
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.store.repair import remove_damaged_metadata
from dynaprop.pipeline.store.verify import verify_key
from tests.pipeline.extract.test_dataset import extract, spec
from tests.pipeline.stand_ins import CHANNELS, Content, StandInBackbone, StandInPool


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Iterator[DatasetSpec]:
    """Four videos in two shards, extracted into the folder above theirs by stand-ins."""
    root = tmp_path_factory.mktemp("disk") / "videos"
    (root / "a").mkdir(parents=True)
    for index in range(4):
        Content(index, 8).write(root / "a" / f"{index}.mp4", time=index)
    with ExitStack() as patches:
        for target, stand_in in (
            ("dynaprop.pipeline.extract.dataset.DecodePool", lambda **_: StandInPool()),
            ("dynaprop.pipeline.backbones.timm_networks.channels", lambda *_: CHANNELS),
            ("dynaprop.pipeline.backbones.backbone.FrameBackbone", StandInBackbone),
            ("dynaprop.pipeline.backbones.timm_networks.gmacs_per_frame", lambda *_: 0.0),
        ):
            patches.enter_context(mock.patch(target, stand_in))
        extract(spec(root), root.parent)
        yield spec(root)


@pytest.fixture
def store(dataset) -> FeatureStore:
    return open_store(dataset, dataset.root.parent)


@contextmanager
def away(folder: Path, number: int) -> Iterator[None]:
    """Let all that asks for what lies below a folder fail."""

    def failing(function: Callable[..., object]) -> Callable[..., object]:
        def call(path: object, *args: object, **options: object) -> object:
            if isinstance(path, str | os.PathLike) and Path(os.fspath(path)).is_relative_to(folder):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *args, **options)

        return call

    with ExitStack() as patches:
        for name in ("io.open", "os.stat", "os.listdir", "os.scandir"):
            module, _, function = name.partition(".")
            patches.enter_context(mock.patch(name, failing(getattr(__import__(module), function))))
        yield


ASKING: dict[str, Callable[[FeatureStore, str, DatasetSpec], object]] = {
    "whose the lock is": lambda store, key, _: LocalLockRecord(store.root).content(),
    "to swap the lock": lambda store, key, _: LocalLockRecord(store.root).swap(b"x", "?"),
    "whether a shard is published": lambda store, key, _: Ledger(store.root / "ledger" / key).has(
        0, store.manifest().shard(0)
    ),
    "which shards are published": lambda store, key, _: store.ledger(key).published(),
    "the rows of a shard": lambda store, key, _: store.ledger(key).read_shard(0),
    "the rows of all shards": lambda store, key, _: store.ledger(key)._read([0, 1], None),
    "the manifest": lambda store, key, _: Manifest.load(store.manifest_path, shard_rows=store.shard_rows),
    "the store's manifest": lambda store, key, dataset: store.manifest(),
    "the store": lambda store, key, dataset: open_store(dataset, dataset.root.parent),
    "the store to read it": lambda store, key, dataset: open_store(dataset, dataset.root.parent, read_only=True),
    "for the keys": lambda store, key, _: store.keys(),
    "for an array": lambda store, key, _: store._array(key),
    "for a chunk": lambda store, key, _: store.has_chunk(key, 0),
    "for its features": lambda store, key, _: store.read_shard(key, 0),
    "for its features again": lambda store, key, _: store.map_shard(key, 0),
    "whether all is right": lambda store, key, _: verify_key(store, key),
    "what is damaged": lambda store, key, _: remove_damaged_metadata(store.root),
}


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
@pytest.mark.parametrize("asking", ASKING)
def test_who_asks_is_told_so(dataset, store, asking, number):
    key = next(iter(store.keys()))
    store.channels(key)
    store.manifest()
    with (
        away(store.root, number),
        pytest.raises(InfrastructureError, match=rf"^{store.root}.* cannot be (read|written): {os.strerror(number)}"),
    ):
        ASKING[asking](store, key, dataset)
    assert verify_key(store, key).problems == ()


@pytest.mark.parametrize("what", ["ledger", "features.zarr"])
def test_a_part_of_a_store_that_is_away_is_no_problem_of_it(dataset, store, what):
    """Repair would compute it again, and training say that it is damaged."""
    student, teacher = store.keys()
    store.channels(student), store.channels(teacher)
    annotations = read_annotations(dataset)
    with away(store.root / what, errno.ESTALE):
        with pytest.raises(InfrastructureError, match="Stale file handle"):
            verify_key(store, student)
        with pytest.raises(InfrastructureError, match="Stale file handle"):
            load_features(
                store,
                annotations.videos,
                class_names=annotations.class_names,
                student_key=student,
                teacher_key=teacher,
            )


def test_what_was_written_and_cannot_be_read_back_is_tried_again(store, monkeypatch):
    key = next(iter(store.keys()))
    features = np.array(store.read_shard(key, 0))
    read = FeatureStore.read_shard

    def read_away(self: FeatureStore, key: str, shard: int) -> np.ndarray:
        with away(self.root, errno.EIO):
            return read(self, key, shard)

    monkeypatch.setattr(FeatureStore, "read_shard", read_away)
    with pytest.raises(InfrastructureError, match="cannot be read: Input/output error"):
        store.write_shard(key, 0, features)


@pytest.mark.parametrize("asking", ["the rows of a shard", "the manifest", "whose the lock is"])
def test_what_one_may_not_read_is_neither_damaged_nor_worth_another_try(dataset, store, asking):
    key = next(iter(store.keys()))
    with away(store.root, errno.EACCES), pytest.raises(DynapropError, match="cannot be read: Permission denied") as no:
        ASKING[asking](store, key, dataset)
    assert not isinstance(no.value, InfrastructureError)
