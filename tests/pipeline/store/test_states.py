"""Stores that are not as they should be: one clear line, and nothing damaged."""

import errno
import os
import re
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from zarr.storage import _local

from dynaprop.heads.features.loaded import load_features
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.names import open_store, store_path
from dynaprop.pipeline.store.repair import remove_damaged_metadata
from dynaprop.pipeline.store.verify import verify_key
from tests.pipeline.extract.test_dataset import extract, spec
from tests.pipeline.videos import write_video


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that other users can reach, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def dataset(home) -> DatasetSpec:
    for index in range(4):
        write_video(home / "videos" / "ab"[index % 2] / f"{index}.mp4", seed=index)
    return spec(home / "videos")


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_whole(dataset: DatasetSpec, home: Path) -> None:
    """The next extraction ends the work, all of it is right, and nothing lies about."""
    summary = extract(dataset, home)
    assert (summary.usable, summary.failed) == (4, {})
    store = open_store(dataset, home)
    for key in summary.keys.values():
        check = verify_key(store, key)
        assert (check.problems, check.unpublished) == ((), 0)
    names = {path.name for path in store.root.rglob("*") if path.is_file()}
    assert not {name for name in names if "partial" in name or name.endswith(".new") or name == "lock.json"}


class TestFullDisk:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("step", ["manifest.parquet", "000000.parquet", "000001.parquet"])
    def test_while_a_table_is_written(self, dataset, home, monkeypatch, step, number):
        replaced = Path.replace

        def full(path: Path, target: Path) -> Path:
            if Path(target).name == step:
                raise OSError(number, os.strerror(number))
            return replaced(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            with pytest.raises(DynapropError, match=rf"{step} cannot be written: .*; make room, then the same command"):
                extract(dataset, home)
        assert_whole(dataset, home)

    @pytest.mark.parametrize("step", [r"c/0/0", r"c/1/0", r"features.zarr/[^/]+/zarr.json", r"features.zarr/zarr.json"])
    def test_while_zarr_writes(self, dataset, home, monkeypatch, step):
        put = _local._put

        def full(path: Path, *args, **options):
            if re.search(step + "$", path.as_posix()):
                raise OSError(errno.ENOSPC, "No space left on device")
            return put(path, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(_local, "_put", full)
            with pytest.raises(DynapropError, match="cannot be written: No space left on device; make room"):
                extract(dataset, home)
        assert_whole(dataset, home)

    @pytest.mark.parametrize("limit", [100, 3_000, 9_000])
    def test_files_that_really_end_half_way(self, dataset, home, limit):
        """A limit of the kernel on a file's size: the lock, then the tables, then the chunks are cut off."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(DynapropError, match="cannot be written: File too large; make room"):
                extract(dataset, home)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert_whole(dataset, home)

    def test_what_was_published_before_stays(self, dataset, home, monkeypatch):
        extract(dataset, home)
        store = open_store(dataset, home)
        before = contents(store.root)
        write_video(home / "videos" / "a" / "new.mp4", seed=9)
        with monkeypatch.context() as patch:
            patch.setattr(FeatureStore, "write_shard", lambda *_: (_ for _ in ()).throw(DynapropError("full")))
            with pytest.raises(DynapropError, match="full"):
                extract(dataset, home)
        after = contents(store.root)
        assert {name: after[name] for name in before if "/c/" in name or "ledger" in name} == {
            name: data for name, data in before.items() if "/c/" in name or "ledger" in name
        }
        assert extract(dataset, home).usable == 5


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Nobody, root neither, may write below a folder."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in folders}
    for path in folders:
        path.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        for path, mode in modes.items():
            path.chmod(mode)


class TestReadOnly:
    def test_extraction_is_refused_before_anything_is_decoded(self, dataset, home, monkeypatch):
        extract(dataset, home)
        write_video(home / "videos" / "a" / "new.mp4", seed=9)
        monkeypatch.setattr(
            "dynaprop.pipeline.decoding.pool.DecodePool.__init__", lambda *_, **__: pytest.fail("decoded")
        )
        with (
            read_only(home / "stores"),
            pytest.raises(DynapropError, match=r"cannot be written: Permission denied; make it writable, or set DYN"),
        ):
            extract(dataset, home)

    def test_no_store_can_be_made_in_a_read_only_folder(self, dataset, home):
        (home / "stores").mkdir()
        with read_only(home / "stores"), pytest.raises(DynapropError, match="cannot be written: Permission denied"):
            extract(dataset, home)

    def test_it_can_be_read_and_verified(self, dataset, home):
        keys = extract(dataset, home).keys
        with read_only(home / "stores"):
            store = open_store(dataset, home, read_only=True)
            for key in keys.values():
                assert verify_key(store, key).problems == ()
            loaded = load_features(
                store,
                read_annotations(dataset).videos,
                class_names=("a", "b"),
                student_key=keys["s"],
                teacher_key=keys["t"],
            )
            assert len(loaded.split) == 4

    def test_opened_to_read_it_is_neither_made_nor_written(self, dataset, home):
        with pytest.raises(DynapropError, match="there is no store"):
            open_store(dataset, home, read_only=True)
        assert not (home / "stores").exists()
        key = extract(dataset, home).keys["s"]
        store = open_store(dataset, home, read_only=True)
        with pytest.raises(ValueError, match="read-only"):
            store.write_shard(key, 0, store.read_shard(key, 0))


class TestAnotherKind:
    @pytest.fixture
    def store(self, dataset, home) -> FeatureStore:
        extract(dataset, home)
        return open_store(dataset, home)

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({"schema": 2}, "made by a newer dynaprop .schema 2 of the store, this one knows 1.; update dynaprop"),
            ({"schema": 0}, "made by an older dynaprop .schema 0 of the store, this one knows 1.; move"),
            ({"grid": {"dataset": "other"}}, "a store of another kind"),
            ({"schema": "1"}, "zarr.json is damaged"),
            ({"shard_rows": None}, "zarr.json is damaged"),
            ({"shard_rows": 0}, "zarr.json is damaged"),
            ({"grid": []}, "zarr.json is damaged"),
        ],
    )
    def test_it_is_refused_and_left_alone(self, dataset, home, attributes, message):
        store = open_store(dataset, home)
        store.group.attrs.update(attributes)
        before = contents(store.root)
        with pytest.raises(DynapropError, match=message):
            extract(dataset, home)
        with pytest.raises(DynapropError, match=message):
            open_store(dataset, home, read_only=True)
        after = contents(store.root)
        after.pop(".lock.guard")  # the lock was taken before the store was looked at
        assert after == before

    def test_a_damaged_description_is_named(self, store, dataset, home):
        key = sorted(store.keys())[0]
        for metadata in (store.root / "features.zarr" / key / "zarr.json", store.root / "features.zarr" / "zarr.json"):
            good = metadata.read_bytes()
            for content in (b"", b"noise", b"{}", b"[]", b"null", b'{"zarr_format": 2}', b"\xff\xfe", good[:99]):
                metadata.write_bytes(content)
                with pytest.raises(DynapropError, match=r"zarr.json is damaged; verify and repair the dataset"):
                    open_store(dataset, home).keys()
            metadata.write_bytes(good)

    def test_an_array_of_another_layout_is_damaged(self, store, dataset, home):
        key = sorted(store.keys())[0]
        metadata = store.root / "features.zarr" / key / "zarr.json"
        for old, new in (('"float16"', '"float32"'), ("20", "40"), ('"model"', '"mdl"')):
            good = metadata.read_text()
            metadata.write_text(good.replace(old, new))
            with pytest.raises(DynapropError, match="is damaged"):
                open_store(dataset, home).keys()
            metadata.write_text(good)

    def test_other_shard_rows_in_the_catalog_are_for_new_stores(self, store, dataset, home):
        """The store keeps its own: what is there stays, and what is new fits beside it."""
        before = contents(store.root)
        write_video(home / "videos" / "a" / "new.mp4", seed=9)
        summary = extract(dataset.model_copy(update={"shard_rows": 64}), home)
        assert (summary.usable, summary.decoded) == (5, 1)
        assert open_store(dataset, home).shard_rows == 20
        after = contents(store.root)
        assert all(after[name] == data for name, data in before.items() if "/c/" in name)

    def test_a_file_where_the_store_should_be(self, dataset, home):
        root = store_path(dataset, home)
        root.parent.mkdir(parents=True)
        root.write_text("mine")
        with pytest.raises(DynapropError, match="a file is in the way of a folder: move it away"):
            extract(dataset, home)
        with pytest.raises(DynapropError, match="is a file where a store should be; move it away"):
            open_store(dataset, home, read_only=True)
        assert root.read_text() == "mine"
        root.unlink()
        shutil.rmtree(home / "stores")
        (home / "stores").write_text("mine")
        with pytest.raises(DynapropError, match="a file is in the way of a folder: move it away"):
            extract(dataset, home)

    def test_another_versions_store_is_left_alone(self, store):
        """Its arrays may look damaged to this one."""
        store.group.attrs["schema"] = 2
        metadata = store.root / "features.zarr" / sorted(store.keys())[0] / "zarr.json"
        metadata.write_text(metadata.read_text().replace('"model"', '"network"'))
        before = contents(store.root)
        with pytest.raises(DynapropError, match="made by a newer dynaprop"):
            remove_damaged_metadata(store.root)
        assert contents(store.root) == before

    def test_one_word_against_that_of_all_arrays_is_the_damaged_one(self, store, dataset, home):
        group = store.root / "features.zarr" / "zarr.json"
        group.write_text(group.read_text().replace('"shard_rows": 20', '"shard_rows": 21'))
        assert remove_damaged_metadata(store.root) == [group]
        assert open_store(dataset, home).shard_rows == 20
        assert len(open_store(dataset, home).keys()) == 2

    def test_a_manifest_that_is_gone_is_not_begun_anew(self, store, dataset, home):
        """Its rows would be given to other videos, and their ledgers be taken for those videos'."""
        store.manifest_path.unlink()
        with pytest.raises(DynapropError, match=r"manifest.parquet is gone, and only it knows whose the features are"):
            extract(dataset, home)

    def test_an_older_manifest_is_not_filled_from_newer_ledgers(self, store, dataset, home):
        old = store.manifest_path.read_bytes()
        write_video(home / "videos" / "a" / "newer.mp4", seed=8)
        extract(dataset, home)
        store.manifest_path.write_bytes(old)
        (home / "videos" / "a" / "newer.mp4").unlink()
        write_video(home / "videos" / "a" / "another.mp4", seed=9)
        summary = extract(dataset, home)
        assert (summary.usable, summary.decoded) == (5, 1)
        for key in summary.keys.values():
            assert verify_key(store, key).problems == ()
