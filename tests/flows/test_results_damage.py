"""What a run keeps is believed only while it is what was written: damage is noticed, and what can be, made again."""

import random
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dynaprop.heads.runs.checkpoint import load_checkpoint
from dynaprop.heads.runs.folder import RunFolder, read_settings
from dynaprop.heads.runs.rows import TABLES


@pytest.fixture
def run(workplace, dynaprop) -> Path:
    """A run that has trained, kept models and swept."""
    for command in (("extract",), ("train",), ("sweep", "--sweep", "few")):
        outcome = dynaprop(*command, "tiny")
        assert outcome.code == 0, outcome.err
    (folder,) = (workplace / "runs").iterdir()
    return folder


def kept_files(run: Path) -> list[Path]:
    """All that later commands read."""
    made = ("report.html", ".update.guard")
    return sorted(path for path in run.rglob("*") if path.is_file() and path.name not in made)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def content(run: Path) -> list[object]:
    """All that the files say."""
    folder = RunFolder(run)
    tables = [pd.read_parquet(run / f"{name}.parquet").to_json() for name in TABLES]
    models = [
        [tensor.tolist() for tensor in load_checkpoint(kept.path).model.state_dict().values()] for kept in folder.kept()
    ]
    infos = [load_checkpoint(kept.path).info.model_dump(exclude={"checksum"}) for kept in folder.kept()]
    return [tables, models, infos, read_settings(run), folder.asked(), folder.measured()]


@pytest.mark.timeout(900)
def test_a_flipped_bit_anywhere_is_noticed_or_harmless(run):
    files = kept_files(run)
    assert {path.suffix for path in files} == {".parquet", ".json", ".safetensors"}
    assert {path.parts[len(run.parts)] for path in files} >= {"units", "asked", "checkpoints", "run.json"}
    before = content(run)
    assert not RunFolder(run).problems()
    rng = random.Random(17)
    harmless = 0
    for _ in range(500):
        path = rng.choice(files)
        data = path.read_bytes()
        flip(path, rng.randrange(len(data) * 8))
        if not RunFolder(run).problems():
            harmless += 1
            assert content(run) == before, path
        path.write_bytes(data)
    assert harmless < 10
    assert content(run) == before


def test_damaged_results_are_measured_again_by_the_next_sweep(run, dynaprop):
    before = pd.read_parquet(run / "results.parquet").drop(columns="seconds")
    damaged = sorted(run.glob("units/*/predictions.parquet"))[0]
    flip(damaged, 8 * 500)
    for command in (("train", "tiny"), ("sweep", "tiny", "--sweep", "few")):
        outcome = dynaprop(*command)
        assert outcome.code == 0, outcome.err
    assert not damaged.exists()
    after = pd.read_parquet(run / "results.parquet").drop(columns="seconds")
    by = ["experiment", "model", "n_s", "n_t", "seed"]
    pd.testing.assert_frame_equal(
        *(frame.sort_values(by, ignore_index=True) for frame in (before, after)), check_exact=False
    )
    assert not RunFolder(run).problems()


def test_damaged_models_are_refused_and_trained_again(run, dynaprop):
    weights = sorted(run.glob("checkpoints/*/dynamic*.safetensors"))[0]
    before = weights.read_bytes()
    flip(weights, 8 * 2000)
    outcome = dynaprop("predict", "tiny", "videos/a/0.mp4")
    assert outcome.code == 1
    assert "is not the file that" in outcome.err and "train the model again" in outcome.err
    outcome = dynaprop("train", "tiny")
    assert outcome.code == 0 and "it is trained again" in outcome.err
    assert weights.read_bytes() == before


def test_verify_looks_at_runs_and_repairs_them(run, dynaprop):
    outcome = dynaprop("verify", "tiny")
    assert outcome.code == 0 and "results: 1 runs, 0 problems" in outcome.out
    before = pd.read_parquet(run / "results.parquet").drop(columns="seconds")
    flip(sorted(run.glob("units/*/results.parquet"))[0], 8 * 900)
    flip(run / "per_class.parquet", 8 * 300)
    flip(sorted(run.glob("checkpoints/*/student*.json"))[0], 8 * 300)
    outcome = dynaprop("verify", "tiny")
    assert outcome.code == 1
    assert "results: 1 runs, 3 problems" in outcome.out
    assert "per_class.parquet is damaged" in outcome.out and "--repair" in outcome.err
    outcome = dynaprop("verify", "tiny", "--repair")
    assert outcome.code == 0, outcome.err
    assert dynaprop("verify", "tiny").code == 0
    after = pd.read_parquet(run / "results.parquet").drop(columns="seconds")
    by = ["experiment", "model", "n_s", "n_t", "seed"]
    pd.testing.assert_frame_equal(
        *(frame.sort_values(by, ignore_index=True) for frame in (before, after)), check_exact=False
    )


def test_tables_are_made_again_from_what_was_measured(run, dynaprop, tmp_path):
    """Damaged ones, and those that a killed command did not come to; tables that were passed on alone are checked."""
    table = run / "results.parquet"
    before = pd.read_parquet(table)
    flip(table, 8 * 700)
    outcome = dynaprop("report", "tiny")
    assert outcome.code == 0, outcome.err
    pd.testing.assert_frame_equal(pd.read_parquet(table), before)

    for name in TABLES:
        (run / f"{name}.parquet").unlink()
    outcome = dynaprop("report", "tiny")
    assert outcome.code == 0, outcome.err
    pd.testing.assert_frame_equal(pd.read_parquet(table), before)

    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("run.json", *(f"{name}.parquet" for name in TABLES)):
        shutil.copy(run / name, alone / name)
    outcome = dynaprop("report", str(alone))
    assert outcome.code == 0, outcome.err
    flip(alone / "results.parquet", 8 * 700)
    outcome = dynaprop("report", str(alone))
    assert outcome.code == 1 and "results.parquet is damaged" in outcome.err
