"""The command line on a store that is in use, damaged, or not as it should be."""

import re

import pytest

from pipeline import lock as lock_module
from pipeline.lock import LocalLockRecord, StoreLock
from tests.pipeline.test_lock import Clock

pytestmark = pytest.mark.usefixtures("prefect_server")


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
