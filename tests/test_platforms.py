"""Platforms that lack packages: what is installed where, and the product without decord and OpenVINO."""

import json
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.video.decoders import require_decoder
from tests.conftest import REPOSITORY
from tests.pipeline.videos import write_video

ABSENT = REPOSITORY / "tests" / "absent"
PLATFORMS = {
    "Linux on x86-64": ({"sys_platform": "linux", "platform_machine": "x86_64"}, {"decord", "openvino"}),
    "Linux on arm64": ({"sys_platform": "linux", "platform_machine": "aarch64"}, {"openvino"}),
    "Apple Silicon": ({"sys_platform": "darwin", "platform_machine": "arm64"}, {"openvino"}),
    "Linux on POWER": ({"sys_platform": "linux", "platform_machine": "ppc64le"}, set()),
    "Linux on RISC-V": ({"sys_platform": "linux", "platform_machine": "riscv64"}, set()),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", ["3.11", "3.14"])
def test_packages_are_asked_for_only_where_they_exist(platform, python):
    """decord has wheels for x86-64 alone, none of them for a Mac's Python of today; neither has a source package."""
    environment, there = PLATFORMS[platform]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    environment |= {"python_version": python, "os_name": "posix"}
    installed = {one.name for one in wanted if one.marker is None or one.marker.evaluate(environment)}
    assert installed & {"decord", "openvino"} == there
    assert {one.name for one in wanted} - installed == {"decord", "openvino"} - there
    assert {"av", "torch", "zarr", "timm"} <= installed


def without_both(*command: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python where neither package can be imported, its children included."""
    paths = os.pathsep.join([str(ABSENT), str(REPOSITORY)])
    environment = os.environ | {"PYTHONPATH": paths, "DYNAPROP_HOME": str(home), "COLUMNS": "200"} | environment
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, cwd=home)


def test_every_module_is_imported_without_either(tmp_path):
    modules = [
        info.name
        for info in pkgutil.walk_packages([str(REPOSITORY / "dynaprop")], "dynaprop.")
        if not info.name.endswith("__main__")
    ]
    assert len(modules) > 100
    code = f"""
import importlib, importlib.util
assert importlib.util.find_spec("decord") is importlib.util.find_spec("openvino") is None
for name in {modules!r}: importlib.import_module(name)
"""
    done = without_both("-c", code, home=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_decoder_that_is_not_installed_is_wrong_use(monkeypatch):
    require_decoder("decord")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    require_decoder("pyav")
    with pytest.raises(UsageError, match="needs the package decord, which is not here"):
        require_decoder("decord")


@pytest.fixture
def home(tmp_path) -> Path:
    for name in ("kick/a", "kick/b", "kick/c", "run/a", "run/b", "run/c"):
        write_video(tmp_path / "videos" / f"{name}.mp4", seed=len(list(tmp_path.rglob("*.mp4"))))
    (tmp_path / "catalog.yaml").write_text(
        json.dumps(
            {
                "datasets": {
                    "own": {"root": str(tmp_path / "videos"), "test_fraction": 0.34},
                    "by-decord": {"root": str(tmp_path / "videos"), "decoder": "decord"},
                },
                "backbones": {
                    "light": {"model": "test_efficientnet", "size": 32, "weights": "random"},
                    "heavy": {"model": "test_resnet", "size": 48, "weights": "random"},
                },
                "recipes": {
                    "lite": {"student": "light", "teacher": "heavy", "n_s": 4, "n_t": 2, "epochs": 2, "key_dim": 8}
                },
                "sweeps": {"short": {"rows": [{"models": ["teacher", "dynamic"]}]}},
            }
        )
    )
    return tmp_path


def features(home: Path) -> list[np.ndarray]:
    """All cached features, by key, as they lie on the disk."""
    chunks = sorted((home / "stores").rglob("c/0/0"))
    assert len(chunks) == 2
    return [np.frombuffer(chunk.read_bytes(), np.float16).astype(np.float32) for chunk in chunks]


def test_decord_in_the_catalog_is_one_line_where_it_is_not_installed(home):
    command = ("-m", "dynaprop.flows.cli", "extract", "by-decord", "--catalog", "catalog.yaml")
    for options in ((), ("--dry-run",)):
        done = without_both(*command, *options, home=home)
        assert done.returncode == 2, done.stderr
        assert "'decoder: decord' needs the package decord, which is not here" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    assert not list(home.rglob("*.parquet")), "nothing was begun"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_way_without_either_package(home):
    """From videos to a class, in torch, with the features that OpenVINO gives."""
    assert load_catalog(home / "catalog.yaml").dataset("own").decoder == "pyav"
    options = ("--catalog", "catalog.yaml")
    said = []
    for command in (
        ("extract", "own"),
        ("train", "own"),
        ("sweep", "own", "--experiment", "short"),
        ("datasets",),
        ("verify", "own", "--deep"),
        ("export", "own", "--output", "model"),
    ):
        done = without_both("-m", "dynaprop.flows.cli", *command, *options, home=home)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said.append(done.stderr)
    for branch in ("light", "heavy"):
        assert f"{branch} runs in torch, which is slower: it cannot be compiled" not in said[0]
        assert f"{branch} runs in torch, which is slower: OpenVINO is not here (No module named 'openvino')" in said[0]
    answer = without_both("-m", "dynaprop.flows.cli", "predict", "model", "videos/kick/a.mp4", home=home)
    assert answer.returncode == 0 and ("kick" in answer.stdout or "run" in answer.stdout), answer.stderr
    slow = features(home)
    (home / "stores").rename(home / "stores of torch")
    command = [sys.executable, "-m", "dynaprop.flows.cli", "extract", "own", *options]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DYNAPROP_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=home)
    assert done.returncode == 0 and "runs in torch" not in done.stderr, done.stderr
    for one, other in zip(slow, features(home), strict=True):
        there = np.isfinite(one)
        assert np.array_equal(there, np.isfinite(other)) and there.any()
        np.testing.assert_allclose(one[there], other[there], atol=2e-3 * np.abs(other[there]).max())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_tests_of_what_needs_neither_pass_without_either(tmp_path):
    """Decoding and recognition, by the tests that there are, less those of the two packages."""
    tests = ["heads/recognise/test_recogniser.py", "pipeline/video/test_decoders.py"]
    done = without_both(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests")),
        *("-k", "not decord and not onnx", "--rootdir", str(REPOSITORY), "-c", str(REPOSITORY / "pyproject.toml")),
        *(str(REPOSITORY / "tests" / name) for name in tests),
        home=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
