"""Extractions of real videos that are killed at random moments lose nothing, repeat nothing, and change no byte."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.store.verify import verify_key
from tests.conftest import REPOSITORY
from tests.extract_process import dataset

MAY_DIFFER = ["attempts", "seconds"]  # of a ledger's row


@dataclass
class Tally:
    """What the kills hit; printed."""

    runs: int = 0
    kills: dict[str, int] = field(default_factory=lambda: {"all": 0, "model": 0, "child": 0})
    published: list[int] = field(default_factory=list)
    """Shards' ledgers that stood at each kill of a run."""
    retried: int = 0
    """Videos whose decode child was lost."""

    def __str__(self) -> str:
        kills = ", ".join(f"{count} x {target}" for target, count in self.kills.items())
        return (
            f"{sum(self.kills.values())} kills ({kills}) in {self.runs} runs; ledgers published at the kills of runs: "
            f"{self.published}; {self.retried} videos decoded again after their child was lost"
        )


@dataclass
class Killer:
    """Runs extractions of ``root`` and kills them."""

    root: Path
    chance: random.Random
    tally: Tally = field(default_factory=Tally)

    def start(self, home: Path) -> subprocess.Popen[str]:
        """A run in a session of its own, at the beginning of its work."""
        self.tally.runs += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.extract_process", str(self.root), str(home)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        return process

    def run_through(self, home: Path) -> None:
        """An extraction that nobody disturbs."""
        process = self.start(home)
        assert process.wait(timeout=240) == 0

    def run_killed(self, home: Path, target: str, *, within: float) -> bool:
        """Kill a run, all its processes or the model's alone, within so many seconds; False if it was faster."""
        process = self.start(home)
        before = published_files(home)
        try:
            process.wait(timeout=self.chance.uniform(0, within))
            assert process.returncode == 0
            return False
        except subprocess.TimeoutExpired:
            pass
        victims = session(process.pid) if target == "all" else [process.pid]
        for pid in victims:
            kill(pid)
        process.wait()
        wait_until_gone(process.pid)
        after = published_files(home)
        assert before.items() <= after.items(), "a published shard was written again"
        self.tally.kills[target] += 1
        self.tally.published.append(sum(path.endswith(".parquet") for path in after))
        return True

    def run_childless(self, home: Path, *, every: float, at_most: int) -> None:
        """Kill a decode child now and then; the run itself must come to its end."""
        process = self.start(home)
        kills = 0
        while process.poll() is None:
            time.sleep(self.chance.uniform(0, 2 * every))
            children = [pid for pid in session(process.pid) if pid != process.pid]
            if children and kills < at_most and kill(self.chance.choice(children)):
                kills += 1
        assert process.returncode == 0
        wait_until_gone(process.pid)
        self.tally.kills["child"] += kills


def session(leader: int, *, zombies: bool = False) -> list[int]:
    """Living processes of a session, or all that are not reaped."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(sid) == leader and (zombies or state != "Z"):
            pids.append(int(stat.parent.name))
    return pids


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(leader: int) -> None:
    end = time.monotonic() + 10
    while session(leader):
        assert time.monotonic() < end, "decode children outlive their parent"
        time.sleep(0.05)


def published_files(home: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every published ledger and of the chunks that it vouches for."""
    files = {}
    for ledger in home.glob("stores/*/*/ledger/*/[0-9]*.parquet"):
        chunk = ledger.parents[2] / "features.zarr" / ledger.parent.name / "c" / str(int(ledger.stem)) / "0"
        for path in (ledger, chunk):
            status = path.stat()
            files[str(path)] = status.st_ino, status.st_mtime_ns
    return files


def check(root: Path, home: Path, undisturbed: Path) -> int:
    """A store against that of the run that nobody disturbed; the number of videos whose child was lost."""
    spec = dataset(root)
    store, expected = open_store(spec, home), open_store(spec, undisturbed)
    assert store.keys().keys() == expected.keys().keys()
    pd.testing.assert_frame_equal(store.manifest().table, expected.manifest().table)
    listed = {path.relative_to(root).as_posix() for path in root.rglob("*.avi")}
    retried = 0
    for key in sorted(expected.keys()):
        ledger, reference = store.ledger(key), expected.ledger(key)
        assert ledger.published() == reference.published()
        for shard in reference.published():
            chunks = [one.root / "features.zarr" / key / "c" / str(shard) / "0" for one in (store, expected)]
            assert chunks[0].read_bytes() == chunks[1].read_bytes(), f"{key}, shard {shard}"
        rows, right = ledger.read(), reference.read()
        pd.testing.assert_frame_equal(rows.drop(columns=MAY_DIFFER), right.drop(columns=MAY_DIFFER))
        assert set(rows["video_id"]) == listed
        assert (rows["status"] == "ok").all()
        assert verify_key(store, key).problems == ()
        retried = max(retried, int((rows["attempts"].to_numpy() > right["attempts"].to_numpy()).sum()))
    return retried


def copy_videos(data_root: Path, target: Path, *, every: int) -> Path:
    """Weizmann and a class of UT-Interaction."""
    for source in (data_root / "weizmann", data_root / "ut-interaction" / "videos" / "hug"):
        for path in sorted(source.rglob("*.avi"))[::every]:
            copied = target / source.name / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copied)
    return target


def kill_and_resume(killer: Killer, tmp_path: Path, *, runs: dict[str, int], children: int) -> None:
    """Until so many runs and children have been killed: kill, resume, and compare every finished store."""
    undisturbed = tmp_path / "undisturbed"
    began = time.monotonic()
    killer.run_through(undisturbed)
    seconds = time.monotonic() - began
    left = [target for target, count in runs.items() for _ in range(count)]
    killer.chance.shuffle(left)
    stores = 0
    while left:
        home = tmp_path / f"store-{stores}"
        while left and killer.run_killed(home, left[-1], within=seconds / 2):
            left.pop()
        killer.run_through(home)
        check(killer.root, home, undisturbed)
        stores += 1
    while killer.tally.kills["child"] < children:
        home = tmp_path / f"store-{stores}"
        killer.run_childless(home, every=seconds / 20, at_most=children - killer.tally.kills["child"])
        killer.tally.retried += check(killer.root, home, undisturbed)
        stores += 1


def random_moments() -> random.Random:
    """Chance that can be had again: its seed is printed, and taken from the environment."""
    seed = int(os.environ.get("DYNAPROP_KILL_SEED", random.randrange(2**32)))
    print(f"DYNAPROP_KILL_SEED={seed}")
    return random.Random(seed)


def make_killer(root: Path) -> Killer:
    return Killer(root, random_moments())


def test_a_few_kills(data_root, tmp_path):
    killer = make_killer(copy_videos(data_root, tmp_path / "videos", every=5))
    kill_and_resume(killer, tmp_path, runs={"all": 1, "model": 1}, children=2)
    print(killer.tally)


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(1800)
def test_many_kills(data_root, tmp_path):
    root = copy_videos(data_root, tmp_path / "videos", every=1)
    assert len(list(root.rglob("*.avi"))) >= 60
    killer = make_killer(root)
    kill_and_resume(killer, tmp_path, runs={"all": 12, "model": 12}, children=12)
    print(killer.tally)
    assert sum(killer.tally.kills.values()) >= 30
