"""Files that vouch for themselves: any flipped bit is noticed, and any other program reads them."""

import json
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dynaprop.pipeline.io.sealed import (
    SealedTable,
    publish_record,
    publish_sealed,
    read_notes,
    read_record,
    read_sealed,
)

FRAME = pd.DataFrame({"seed": range(300), "name": [f"v{i}" for i in range(300)], "scores": [[0.5, 0.25]] * 300})
RECORD = {"name": "xé", "seeds": [1, 2], "weights": {"a": 0.1}, "nothing": None}


@pytest.fixture
def table(tmp_path):
    rows = pa.Table.from_pandas(FRAME, preserve_index=False)
    with SealedTable(tmp_path / "table.parquet", rows.schema, notes={"from": "here"}) as file:
        file.write(rows)
        file.write(rows.select(["scores", "name", "seed"]))
    return tmp_path / "table.parquet"


def flipped(data: bytes, bit: int) -> bytes:
    other = bytearray(data)
    other[bit // 8] ^= 1 << bit % 8
    return bytes(other)


def test_a_table_is_what_was_written_for_everybody(table):
    twice = pd.concat([FRAME, FRAME], ignore_index=True)
    for read in (pd.read_parquet(table), read_sealed(table).to_pandas()):
        pd.testing.assert_frame_equal(read.drop(columns="scores"), twice.drop(columns="scores"))
        assert np.array_equal(np.stack(read["scores"]), np.stack(twice["scores"]))
    assert read_notes(table)["from"] == "here"
    some = read_sealed(table, columns=["name"], filters=[("seed", "==", 7)]).to_pandas()
    assert some["name"].tolist() == ["v7", "v7"]


def test_every_kind_of_place_in_a_table_is_watched(table):
    data = table.read_bytes()
    marks = [data.index(b"dynaprop-seal") * 8, data.rindex(b"dynaprop-seal") * 8]
    bits = {*range(0, len(data) * 8, 997), *range(len(data) * 8 - 64, len(data) * 8)}
    bits |= {mark + more for mark in marks for more in range(0, 400, 3)}
    for bit in bits:
        table.write_bytes(flipped(data, bit))
        for read in (read_sealed, read_notes):
            with pytest.raises(ValueError, match=r"table.parquet is damaged"):
                read(table)
    for end in (0, 3, len(data) // 2, len(data) - 1):
        table.write_bytes(data[:end])
        with pytest.raises(ValueError):
            read_sealed(table)


def test_tables_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "old.parquet"
    FRAME.to_parquet(path)
    assert read_sealed(path).num_rows == 300
    assert "seal" not in read_notes(path)


def test_every_bit_of_a_record_is_watched(tmp_path):
    path = tmp_path / "record.json"
    publish_record(path, RECORD)
    assert read_record(path) == RECORD
    assert json.loads(path.read_text(encoding="utf-8")).items() > RECORD.items()
    data = path.read_bytes()
    believed = 0
    for bit in range(len(data) * 8):
        path.write_bytes(flipped(data, bit))
        try:
            assert read_record(path) == RECORD  # an e of \\u00e9 may be a capital
            believed += 1
        except ValueError as error:
            assert "record.json is damaged" in str(error)
    assert believed < 5


def test_records_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(RECORD), encoding="utf-8")
    assert read_record(path) == RECORD
    for text in ("[1]", "{", "[" * 10**5, ""):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"record.json is damaged"):
            read_record(path)


def test_a_table_of_many_megabytes_is_sealed_too(tmp_path):
    """Of which only the end is searched for seals."""
    noise = pd.DataFrame({"x": np.random.default_rng(0).random(10**6)})
    publish_sealed(tmp_path / "large.parquet", noise)
    data = (tmp_path / "large.parquet").read_bytes()
    assert len(data) > 5 * 10**6
    assert read_sealed(tmp_path / "large.parquet").num_rows == 10**6
    for bit in random.Random(0).sample(range(len(data) * 8), 5):
        (tmp_path / "large.parquet").write_bytes(flipped(data, bit))
        with pytest.raises(ValueError):
            read_sealed(tmp_path / "large.parquet")
