"""`export --force` replaces an export at once: readers, and kills at every step, find the old one or the new one."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dynaprop.heads.export.model_folder import is_export, read_export
from dynaprop.heads.export.new_folder import new_export
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io import folder_swap, leftovers
from tests.conftest import REPOSITORY
from tests.heads.tiny_model import write_tiny

STEPS = {new_export.__code__.co_filename, folder_swap.__file__, leftovers.__file__}


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> list[Path]:
    """Two exports, of seed 0 and of seed 1."""
    folder = tmp_path_factory.mktemp("exports")
    return [write_tiny(folder / str(seed), seed=seed) for seed in range(2)]


@pytest.fixture(params=["exchange", "two steps"])
def way(request, monkeypatch) -> str:
    """As on Linux' own file systems, and as where these cannot exchange two names."""
    if request.param == "two steps":
        monkeypatch.setattr(folder_swap, "_exchange", lambda *_: False)
    return request.param


def replace(place: Path, by: Path) -> None:
    with new_export(place, overwrite=True) as made:
        shutil.copytree(by, made, dirs_exist_ok=True)


def in_a_child(work: Callable[[], None], *, at_step: int, signal_number: int) -> tuple[int, bool]:
    """Fork and send the child a signal before its n-th line of what replaces; (its process id, whether it got there).

    Without ``at_step`` lines the child ends by itself.
    """
    child = os.fork()
    if child == 0:
        left = at_step

        def trace(frame, event, _argument):
            nonlocal left
            if frame.f_code.co_filename not in STEPS:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal_number)
            return trace

        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(None)
            os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    return child, not os.WIFEXITED(status)


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_at_any_step_leaves_an_export_under_its_name(exports, tmp_path, way, stride):
    """Each time the next command finds one, and the one after that removes what the kill left."""
    place, seeds, step = tmp_path / "exported" / "model", [], 1 - stride
    while True:
        step += stride
        shutil.rmtree(place.parent, ignore_errors=True)
        shutil.copytree(exports[0], place)
        leftovers._swept.clear()
        _, killed = in_a_child(lambda: replace(place, exports[1]), at_step=step, signal_number=signal.SIGKILL)
        if way == "exchange":
            assert place.exists(), "it was away for a moment"
        seeds.append(read_export(place).record.seed)
        leftovers._swept.clear()
        replace(place, exports[0])
        assert [path.name for path in place.parent.iterdir()] == ["model"]
        assert read_export(place).record.seed == 0
        if not killed:
            break
    assert seeds == sorted(seeds), "first the old one, then the new one"
    assert set(seeds) == {0, 1} and step > 20


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_before_the_first_export_is_there_leaves_nothing_that_stays(exports, tmp_path):
    place = tmp_path / "model"
    for step in (1, 10, 20, 30, 40):
        in_a_child(lambda: replace(place, exports[1]), at_step=step, signal_number=signal.SIGKILL)
        assert not place.exists() or read_export(place).record.seed == 1
    leftovers._swept.clear()
    replace(place, exports[0])
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_stopped_process_writes_is_left_alone_and_it_goes_on(exports, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(exports[0], place)
    for step in range(10, 60, 7):
        leftovers._swept.clear()
        child, stopped = in_a_child(lambda: replace(place, exports[1]), at_step=step, signal_number=signal.SIGSTOP)
        try:
            leftovers._swept.clear()
            replace(place, exports[0])
            assert read_export(place).record.seed == 0
        finally:
            if stopped:
                os.kill(child, signal.SIGCONT)
                os.waitpid(child, 0)
        assert read_export(place).record.seed == (1 if stopped else 0), "the last one counts"
        assert list(tmp_path.iterdir()) == [place]


REPLACE = """
import shutil, sys
from pathlib import Path
from dynaprop.heads.export.new_folder import new_export
from dynaprop.pipeline.io import folder_swap
if sys.argv[1] == "two steps":
    folder_swap._exchange = lambda *_: False
place, exports = Path(sys.argv[2]), sys.argv[3:]
print("begun", flush=True)
for number in range(20):
    with new_export(place, overwrite=True) as made:
        shutil.copytree(exports[number % 2], made, dirs_exist_ok=True)
"""


def test_readers_see_the_old_or_the_new_one_and_never_none(exports, tmp_path, way):
    place = tmp_path / "model"
    shutil.copytree(exports[0], place)
    command = [sys.executable, "-c", REPLACE, way, str(place), *map(str, exports)]
    seen, absent = [], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout.readline() == "begun\n"

        def look() -> None:
            while process.poll() is None:
                absent.append(not place.exists())
                time.sleep(0)

        looking = threading.Thread(target=look)
        looking.start()
        while process.poll() is None:
            assert is_export(place)
            seen.append(read_export(place).record.seed)
        looking.join()
        assert process.returncode == 0
    assert seen and set(seen) <= {0, 1}  # both, but a busy machine may read at the same turn each time
    if way == "exchange":
        assert not any(absent)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_of_an_earlier_version_that_was_moved_aside_comes_back(exports, tmp_path):
    """It was renamed twice, and a kill between the two left nothing under its name."""
    shutil.copytree(exports[0], tmp_path / ".model.k3j2h1_0.old")
    (tmp_path / ".photos.k3j2h1_0.old").mkdir()
    assert not is_export(tmp_path / "photos")
    assert is_export(tmp_path / "model")
    assert read_export(tmp_path / "model").record.seed == 0
    assert {path.name for path in tmp_path.iterdir()} == {"model", ".photos.k3j2h1_0.old"}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_command_that_only_tidies_brings_it_back_too(exports, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_swap, "_exchange", lambda *_: False)
    place, rename, renamed = tmp_path / "model", Path.rename, []
    shutil.copytree(exports[0], place)

    def killed_between(path, target):
        renamed.append(path)
        if len(renamed) == 3:  # the first finds a folder in its place, the second moves that aside
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed_between)
    in_a_child(lambda: replace(place, exports[1]), at_step=0, signal_number=signal.SIGKILL)
    assert not place.exists()
    leftovers.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [place]
    assert read_export(place).record.seed == 0


def test_a_place_that_cannot_be_replaced_keeps_what_it_has(exports, tmp_path, monkeypatch):
    place = tmp_path / "model"
    shutil.copytree(exports[0], place)

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(place))

    with monkeypatch.context() as patch, pytest.raises(DynapropError, match="cannot be written: Permission denied"):
        patch.setattr(folder_swap, "_exchange", refuse)
        replace(place, exports[1])
    assert read_export(place).record.seed == 0
    (place / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="no exported model"):
        replace(place, exports[1])
    assert (place / "notes.txt").exists() and list(tmp_path.iterdir()) == [place]
