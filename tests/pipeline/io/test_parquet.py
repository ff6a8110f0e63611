"""Parquet files that are damaged: what was altered is never taken for what was written."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.parquet import publish_parquet, read_parquet
from dynaprop.pipeline.store.ledger import Ledger
from dynaprop.pipeline.store.manifest import Manifest

TABLE = pd.DataFrame(
    {
        "name": [f"video {number}" for number in range(50)],
        "row": range(50),
        "times": [np.arange(number % 7) / 3 for number in range(50)],
    }
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "table.parquet"
    publish_parquet(path, TABLE)
    return path


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_data_is_noticed(file: Path, place: float, bit: int) -> None:
    """The pages lie between the magic number and the footer, whose length stands before the last magic number."""
    data = file.read_bytes()
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    damaged = bytearray(data)
    damaged[4 + int(place * (end - 4))] ^= 1 << bit
    other = file.with_name("damaged.parquet")
    other.write_bytes(damaged)
    try:
        table = read_parquet(other, required=TABLE.columns).to_pandas()
    except ValueError:
        return
    pd.testing.assert_frame_equal(table, TABLE)  # a byte that says nothing, such as a page's statistics


@given(st.integers(0, 2000), st.binary(max_size=20))
def test_any_damage_is_one_kind_of_error(file: Path, begin: int, piece: bytes) -> None:
    data = file.read_bytes()
    other = file.with_name("damaged.parquet")
    other.write_bytes(data[:begin] + piece + data[begin + len(piece) + 1 :])
    try:
        table = read_parquet(other, required=TABLE.columns).to_pandas()
    except ValueError as error:
        assert str(error).startswith(f"{other}: ")
    else:  # the damage lies where nothing is read
        assert len(table) == len(TABLE)


def test_a_disk_that_goes_away_while_a_file_is_read_is_no_damage(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    data = file.read_bytes()
    monkeypatch.setattr(Path, "open", lambda *_: Away(data))
    with pytest.raises(InfrastructureError, match=f"^{file} cannot be read: Stale file handle"):
        read_parquet(file, required=[])


def test_files_of_older_versions_are_read(tmp_path: Path) -> None:
    TABLE.to_parquet(tmp_path / "old.parquet", index=False)
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "old.parquet", required=["row"]).to_pandas(), TABLE)


def test_a_table_of_something_else_is_no_ledger_and_no_manifest(file: Path, tmp_path: Path) -> None:
    for name in ("000000.parquet", "manifest.parquet"):
        (tmp_path / name).write_bytes(file.read_bytes())
    with pytest.raises(DynapropError, match=r"000000\.parquet is damaged"):
        Ledger(tmp_path).read_shard(0)
    with pytest.raises(DynapropError, match=r"manifest\.parquet is damaged"):
        Manifest.load(tmp_path / "manifest.parquet", shard_rows=10)
