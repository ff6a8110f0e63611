"""Ledgers: what is read from many files is what is read from their index, and the index is never trusted blindly."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.store.ledger import OUTCOME, Ledger, LedgerRow


def row(shard: int, place: int, status: str = "ok") -> LedgerRow:
    return LedgerRow(
        video_id=f"{shard}-{place}.mp4",
        size=1,
        mtime_ns=2,
        content="c",
        status=status,
        error_kind=None if status == "ok" else "decode",
        error_detail=None if status == "ok" else "broken",
        shard=shard,
        row=100 * shard + place,
        n_clips=3,
        n_missing=0,
        timestamps=np.array([0.0, 0.5, 1.0 + place]),
        timestamps_source="measured",
        checksum=None if status == "failed" else "xxh3:0",
        decoder="pyav",
        attempts=1,
        seconds=0.1,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three shards, one of which has a failed video."""
    ledger = Ledger(tmp_path / "ledger" / "key")
    for shard in (0, 1, 7):
        ledger.publish(shard, [row(shard, 0), row(shard, 3, "failed" if shard == 1 else "ok")])
    return ledger


def again(ledger: Ledger) -> Ledger:
    """As another process opens it."""
    return Ledger(ledger.folder)


def index_of(ledger: Ledger) -> Path:
    return ledger.folder.with_name("key.parquet")


def test_the_index_says_what_the_files_say(ledger):
    whole, outcomes, some = ledger.read(), ledger.outcomes(), ledger.read(("timestamps",))
    assert list(some) == [*OUTCOME, "timestamps"]
    assert whole["video_id"].tolist() == ["0-0.mp4", "0-3.mp4", "1-0.mp4", "1-3.mp4", "7-0.mp4", "7-3.mp4"]
    assert outcomes.loc[outcomes["status"] == "failed", "error_kind"].tolist() == ["decode"]
    assert not index_of(ledger).exists()
    ledger.index()
    assert index_of(ledger).exists()
    other = again(ledger)
    pd.testing.assert_frame_equal(other.read(), whole)
    pd.testing.assert_frame_equal(other.outcomes(), outcomes)
    pd.testing.assert_frame_equal(other.read(("timestamps",)), some)


def test_the_index_is_what_is_read(ledger):
    """While the files have the size and time that it was made of."""
    ledger.index()
    file = ledger.folder / "000001.parquet"
    status = file.stat()
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(again(ledger).read()) == 6
    with pytest.raises(DynapropError, match=r"000001\.parquet is damaged"):
        again(ledger).read_shard(1)


@pytest.mark.parametrize("change", ["publish", "replace", "withdraw", "damage", "cut", "absent"])
def test_an_index_of_other_files_is_not_used(ledger, change):
    ledger.index()
    before = ledger.outcomes()
    if change == "publish":
        ledger.publish(8, [row(8, 0)])
    elif change == "replace":
        ledger.publish(1, [row(1, 0)])
    elif change == "withdraw":
        ledger.withdraw(7)
    elif change == "damage":
        (ledger.folder / "000001.parquet").write_bytes(b"noise")
    elif change == "cut":
        index_of(ledger).write_bytes(index_of(ledger).read_bytes()[:-20])
    else:
        index_of(ledger).unlink()
    for reader in (ledger, again(ledger)):  # one has read it before
        if change == "damage":
            with pytest.raises(DynapropError, match=r"000001\.parquet is damaged"):
                reader.outcomes()
        elif change in ("cut", "absent"):
            pd.testing.assert_frame_equal(reader.outcomes(), before)
        else:
            expected = {"publish": 7, "replace": 5, "withdraw": 4}[change]
            assert len(reader.outcomes()) == expected == len(reader.read())
            assert list(reader.outcomes()) == list(OUTCOME)


def test_the_index_is_written_only_when_it_is_old(ledger):
    ledger.index()
    first = index_of(ledger).stat().st_ino
    ledger.index()
    assert index_of(ledger).stat().st_ino == first
    ledger.publish(8, [row(8, 0)])
    ledger.index()
    assert len(again(ledger).read()) == 7


def test_one_file_needs_no_index(tmp_path):
    ledger = Ledger(tmp_path / "key")
    ledger.publish(0, [row(0, 0)])
    ledger.index()
    assert not (tmp_path / "key.parquet").exists()


def test_removing_a_ledger_removes_its_index(ledger):
    ledger.index()
    ledger.remove()
    assert not ledger.folder.exists() and not index_of(ledger).exists()
    assert ledger.read().empty and ledger.outcomes().empty


def test_features_without_a_checksum_are_damage(tmp_path):
    ledger = Ledger(tmp_path / "key")
    ledger.publish(0, [replace(row(0, 0), checksum=None)])
    with pytest.raises(DynapropError, match="makes no sense"):
        ledger.read(["checksum"])
