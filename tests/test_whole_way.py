"""The whole way on real datasets, as a user runs it: `dynaprop run`, twice."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def dynaprop(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dynaprop.flows.cli", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "DYNAPROP_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def results_of(done: subprocess.CompletedProcess[str]) -> pd.DataFrame:
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    path = re.search(r"results: (\S+)", done.stdout)
    assert path
    return pd.read_parquet(path[1])


def test_the_sample_dataset_separates_teacher_and_student(tmp_path):
    """It is drawn so that 224 px show more than 112 px; were it not, the demo would show nothing."""
    first = dynaprop(tmp_path, "run", "sample")
    results = results_of(first)
    assert results["seed"].nunique() == 3
    top1 = results.groupby(["model", "n_t"])["top1"].mean()
    assert top1["teacher", 20] - top1["student", 0] >= 0.10
    assert top1.max() < 1
    second = dynaprop(tmp_path, "run", "sample")
    assert "this run decoded 0 videos and ran 0 frames through backbones" in second.stderr
    pd.testing.assert_frame_equal(results_of(second), results)


@pytest.mark.parametrize("target", ["{data}/weizmann", "ut-interaction"])
def test_real_videos(target, data_root, tmp_path):
    arguments = ["run", target.format(data=data_root), "--seeds", "1"]
    first = dynaprop(tmp_path, *arguments, DYNAPROP_DATA=str(data_root))
    results = results_of(first)
    chance = 1 / len(pd.read_parquet(results_path(first).with_name("per_class.parquet"))["class_name"].unique())
    assert set(results["model"]) == {"student", "student-kd", "teacher", "static-avg", "static-weighted", "dynamic"}
    assert (results["top1"] > 1.5 * chance).all()
    assert (results["n_missing"] == 0).all()
    second = dynaprop(tmp_path, *arguments, DYNAPROP_DATA=str(data_root))
    assert "this run decoded 0 videos and ran 0 frames through backbones" in second.stderr


def results_path(done: subprocess.CompletedProcess[str]) -> Path:
    path = re.search(r"results: (\S+)", done.stdout)
    assert path
    return Path(path[1])
