"""Repair of what runs keep, where something cannot be repaired."""

from types import SimpleNamespace

import pytest

from dynaprop.flows.commands.verify_runs import repair_runs
from dynaprop.heads.finetune.tuned_models import FineTunedModels
from dynaprop.heads.finetune.two_stages import Places
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.rows import Asked
from dynaprop.pipeline.errors import DynapropError
from tests.heads.run_writer import SETTINGS, tables_of


def test_a_run_that_cannot_be_repaired_does_not_hold_up_the_others(tmp_path):
    workspace = SimpleNamespace(home=tmp_path, dataset=SimpleNamespace(name="d"), quoted="d")
    first, second = (RunFolder(tmp_path / "runs" / name) for name in ("d-1", "d-2"))
    for run in (first, second):
        run.describe({"dataset": "d"})
        run.write("test-seed0", tables_of(0))
    first.ask(Asked("sweep", "test", (0,), SETTINGS))
    for run in (first, second):
        run.collect()
    for file in (first.path / "asked" / "sweep-test.json", second.path / "results.parquet"):
        file.write_bytes(file.read_bytes()[:-9])
    assert first.problems() and second.problems()
    with pytest.raises(DynapropError, match="1 files of runs are still damaged"):
        repair_runs(workspace)
    assert first.problems() and not second.problems()


def test_a_damaged_model_of_a_fine_tuning_is_refused_with_what_makes_it_anew(tmp_path):
    """Nothing is trained while the record says that all is done."""
    path = tmp_path / "checkpoints" / "dynamic"
    path.parent.mkdir()
    for suffix in (".json", ".safetensors"):
        path.with_name(f"dynamic{suffix}").write_text("{", encoding="utf-8")
    places = Places(run=tmp_path, seed=0, teacher=path, dynamic=path)
    with pytest.raises(DynapropError, match=r"is damaged: .*; to do so, delete \S+/finetuned-seed0.json, and the same"):
        FineTunedModels(places, {SETTINGS[1]: path}).check()
