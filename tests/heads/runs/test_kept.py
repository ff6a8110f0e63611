"""Models that a run has kept are known by the names of their files."""

import pytest

from dynaprop.heads.model.setting import MODELS, expand
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.kept import Kept, kept_at
from dynaprop.heads.runs.rows import Measured

SETTINGS = expand(MODELS[:-1], [(20, 5)]) + expand(["dynamic"], [(8, 2)], fusion=["none", "teacher"], losses=["vid"])


@pytest.mark.parametrize(
    ("split", "fold"), [("test", None), ("val", None), ("stratified", None), ("5-fold", 0), ("10-fold", 9)]
)
def test_what_a_run_names_is_found_again(tmp_path, split, fold):
    run = RunFolder(tmp_path)
    expected = []
    for setting in SETTINGS:
        for seed in (0, 12):
            path = run.checkpoint(Measured(split, fold, seed, setting))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.safetensors").touch()
            file = path.with_name(f"{path.name}.json")
            file.touch()
            variant = setting.name.removeprefix(f"{setting.model}-{setting.n_s}+{setting.n_t}")
            expected.append(Kept(file, split, fold, seed, setting.model, setting.n_s, setting.n_t, variant))
            assert expected[-1].name == setting.name
            assert bool(variant) != setting.is_whole
    assert sorted(run.kept(), key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("name", ["test-seed0/notes.json", "elsewhere/dynamic-20+5.json", "test-seed0/magic-20+5.json"])
def test_other_files_are_none(tmp_path, name):
    assert kept_at(tmp_path / name) is None
