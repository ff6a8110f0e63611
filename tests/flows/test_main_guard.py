"""Scripts that ask for processes whenever they are imported: one line says so, at once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

_SAMPLE = "generate_sample(Path('sample'), videos_per_class=2, seconds=(1, 1), workers=2)"
_CLUSTER = """with open_cluster(ClusterSpec(name="two", processes=2), on_note=print) as cluster:
    print("workers:", cluster.workers)"""
_FLOW = "extract_features('videos', cluster='two')"
_IMPORTS = {
    _SAMPLE: "from pathlib import Path\nfrom dynaprop.pipeline.sample_dataset.generate import generate_sample\n",
    _CLUSTER: "from dynaprop.flows.cluster.start import open_cluster\n"
    "from dynaprop.pipeline.catalog.clusters import ClusterSpec\n",
    _FLOW: "from dynaprop.flows.extract_features import extract_features\n",
}
_ADVICE = 'put the call below `if __name__ == "__main__":`'


def run(folder: Path, script: str) -> tuple[int, str, float]:
    (folder / "script.py").write_text(script, encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**own, "PYTHONPATH": root, "DYNAPROP_HOME": str(folder)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def guarded(call: str) -> str:
    return 'if __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in call.splitlines())


@pytest.mark.parametrize("call", [_SAMPLE, _CLUSTER, _FLOW], ids=["sample", "cluster", "flow"])
def test_no_process_is_started_without_a_guard(workplace, call):
    (workplace / "catalog.yaml").open("a", encoding="utf-8").write("clusters: {two: {processes: 2}}\n")
    code, said, seconds = run(workplace, f"import logging\n{_IMPORTS[call]}log = logging.getLogger(__name__)\n{call}\n")
    assert code == 1
    lines = {line for line in said.splitlines() if line.startswith("dynaprop.pipeline.errors.UsageError: ")}
    assert len(lines) == 1, said
    assert all("script.py:" in line and line.endswith(_ADVICE) for line in lines)
    assert "BrokenPipe" not in said and "Nanny" not in said and "BrokenProcessPool" not in said
    assert seconds < (30 if call == _SAMPLE else 90)  # Prefect and Dask are imported, and a server starts


@pytest.mark.parametrize("call", [_SAMPLE, _CLUSTER], ids=["sample", "cluster"])
def test_a_guard_elsewhere_does_not_help(tmp_path, call):
    script = f"{_IMPORTS[call]}if __name__ == '__main__':\n    print('main')\n{call}\n"
    code, said, seconds = run(tmp_path, script)
    assert code == 1
    assert said.splitlines()[-1].endswith(_ADVICE)
    assert "error: " in said and "freeze_support" not in said
    assert seconds < 60


@pytest.mark.parametrize("call", [_SAMPLE, _CLUSTER], ids=["sample", "cluster"])
def test_with_a_guard_all_works(tmp_path, call):
    code, said, _ = run(tmp_path, _IMPORTS[call] + guarded(call))
    assert code == 0, said
    assert "workers: 2" in said or len(list(tmp_path.glob("sample/*/*/*.mp4"))) > 2


def test_what_starts_no_process_needs_no_guard(tmp_path):
    call = _SAMPLE.replace("workers=2", "workers=1")
    code, said, _ = run(tmp_path, f"{_IMPORTS[_SAMPLE]}{call}\n")
    assert code == 0, said


def test_what_nobody_can_import_needs_no_guard(tmp_path):
    done = shell(tmp_path, "-c", f"{_IMPORTS[_SAMPLE]}{_SAMPLE}\n")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("sample/*/*/*.mp4"))) > 2


def test_a_script_on_stdin_is_no_file(tmp_path):
    done = shell(tmp_path, "-", script=f"{_IMPORTS[_SAMPLE]}{guarded(_SAMPLE)}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("it is read from stdin; save it as a file")


def shell(folder: Path, *arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, input=script, cwd=folder, text=True, capture_output=True, env=environment, timeout=120
    )
