"""Interrupts: a command ends within seconds, leaves nothing behind, and the next one goes on.

The commands run in a terminal of their own: Ctrl-C comes as the terminal sends it, to the whole foreground group, and
closing the terminal is SIGHUP.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.test_kill import check, copy_videos, published_files, random_moments, session

CATALOG = """
datasets:
  killed: {{root: {root}, min_clips: 25, max_clips: 25, shard_rows: 125}}
backbones:
  s: {{model: test_efficientnet, size: 112, weights: random}}
  t: {{model: test_resnet, size: 224, weights: random}}
recipes:
  lite: {{student: s, teacher: t, n_s: 6, n_t: 2}}
"""


class Terminal:
    """A terminal in which one command runs in the foreground."""

    def __init__(self, command: list[str], *, environment: dict[str, str], folder: Path) -> None:
        self._master, slave = os.openpty()

        def log_in() -> None:
            os.login_tty(slave)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup

        self.process = subprocess.Popen(command, env=environment, cwd=folder, preexec_fn=log_in)
        os.close(slave)
        self._shown = bytearray()
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the command has ended
            while not self._closing.is_set():
                if select.select([self._master], [], [], 0.02)[0]:
                    self._shown += os.read(self._master, 4096)

    def control_c(self) -> None:
        """Type Ctrl-C: SIGINT for every process of the foreground group."""
        os.write(self._master, b"\x03")

    def close(self) -> None:
        """Close the window: SIGHUP."""
        self._closing.set()
        self._reader.join()
        os.close(self._master)

    @property
    def shown(self) -> str:
        """What the command has written so far."""
        return self._shown.decode()

    def finish(self) -> tuple[int, str]:
        """Wait for the command; its exit code, and what the terminal showed."""
        code = self.process.wait(timeout=300)
        if not self._closing.is_set():
            self._reader.join(timeout=10)
            self.close()
        return code, self.shown


def type_control_c(terminal: Terminal) -> None:
    terminal.control_c()


def type_control_c_thrice(terminal: Terminal) -> None:
    for _ in range(3):
        terminal.control_c()
        time.sleep(0.2)


def terminate(terminal: Terminal) -> None:
    terminal.process.terminate()


def terminate_thrice(terminal: Terminal) -> None:
    for _ in range(3):
        terminal.process.terminate()
        time.sleep(0.2)


INTERRUPTS: dict[Callable[[Terminal], None], int] = {
    type_control_c: 130,
    type_control_c_thrice: 130,
    terminate: 143,
    terminate_thrice: 143,
    Terminal.close: 129,
}


class Workplace:
    """Videos, the store that an extraction nobody disturbs makes of them, and commands that are interrupted."""

    def __init__(self, folder: Path, data_root: Path, *, every: int) -> None:
        self.folder = folder
        self.root = copy_videos(data_root, folder / "videos", every=every)
        (folder / "catalog.yaml").write_text(CATALOG.format(root=self.root))
        (folder / "temporary").mkdir()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(folder / "temporary"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"),  # its own, for all programs, by default beside these
        }
        self.undisturbed = folder / "undisturbed"
        program = [sys.executable, "-m", "tests.extract_process", str(self.root), str(self.undisturbed)]
        subprocess.run(program, cwd=REPOSITORY, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def extract(self, home: Path) -> Terminal:
        """`dynaprop extract` at its beginning."""
        command = [sys.executable, "-m", "dynaprop.flows.cli", "extract", "killed"]
        environment = {**self.environment, "DYNAPROP_HOME": str(home)}
        return Terminal(command, environment=environment, folder=self.folder)

    def interrupt(self, terminal: Terminal, interrupt: Callable[[Terminal], None]) -> float | None:
        """Interrupt a command and look at what it leaves; the seconds that it took, or None if it was faster."""
        shared = set(Path("/dev/shm").iterdir())
        began = time.monotonic()
        with suppress(OSError):  # it has just ended
            interrupt(terminal)
        code, shown = terminal.finish()
        seconds = time.monotonic() - began
        print(f"{interrupt.__name__}: {code} after {seconds:.2f} s")
        self.check_nothing_is_left(terminal, shared)
        if code == 0:
            assert "features: " in shown
            return None
        assert code == INTERRUPTS[interrupt], shown
        if interrupt is not Terminal.close:
            assert shown.count("interrupted; the same command goes on where it stopped") == 1, shown
        for noise in ("Traceback", "Exception ignored", "Aborted", "rror"):
            assert noise not in shown, shown
        assert seconds < 20, "5 s on a machine that is not busy"
        return seconds

    def check_nothing_is_left(self, terminal: Terminal, shared: set[Path]) -> None:
        """No process, not even a zombie; no temporary file; no lock; no shared memory."""
        end = time.monotonic() + 5
        while left := session(terminal.process.pid, zombies=True):
            assert time.monotonic() < end, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
            time.sleep(0.05)
        assert list((self.folder / "temporary").rglob("*")) == []
        assert [path for path in self.folder.rglob("stores/**/*") if ".partial" in path.name] == []
        assert list(self.folder.rglob("lock.json")) == []
        assert set(Path("/dev/shm").iterdir()) <= shared

    def finish(self, home: Path) -> None:
        """Let a command go on to its end and compare the store with the undisturbed one."""
        before = published_files(home)
        code, shown = self.extract(home).finish()
        assert code == 0, shown
        assert before.items() <= published_files(home).items(), "a published shard was written again"
        check(self.root, home, self.undisturbed)


def wait_for_ledgers(home: Path, terminal: Terminal, count: int) -> None:
    end = time.monotonic() + 120
    while sum(path.endswith(".parquet") for path in published_files(home)) < count:
        assert time.monotonic() < end and terminal.process.poll() is None
        time.sleep(0.02)


def test_interrupted_commands_leave_a_store_that_the_next_one_goes_on_with(data_root, tmp_path):
    place = Workplace(tmp_path, data_root, every=3)
    home = tmp_path / "home"
    for ledgers, interrupt in ((1, type_control_c_thrice), (3, terminate_thrice)):
        terminal = place.extract(home)
        wait_for_ledgers(home, terminal, ledgers)
        assert place.interrupt(terminal, interrupt) is not None
    place.finish(home)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_20_interrupts_at_random_moments(data_root, tmp_path):
    """While starting, probing, extracting, writing and ending."""
    chance = random_moments()
    place = Workplace(tmp_path, data_root, every=1)
    began = time.monotonic()
    place.finish(tmp_path / "home")
    duration = time.monotonic() - began
    print(f"an extraction that nobody disturbs takes {duration:.1f} s")
    times: list[float] = []
    stores = 0
    while len(times) < 20:
        home = tmp_path / f"home-{stores}"
        for interrupt in chance.sample(list(INTERRUPTS), len(INTERRUPTS)):
            moment = chance.uniform(0.5, duration / 2)  # before, Python is starting; all five share the work
            terminal = place.extract(home)
            with suppress(subprocess.TimeoutExpired):
                terminal.process.wait(timeout=moment)
            if (seconds := place.interrupt(terminal, interrupt)) is not None:
                times.append(seconds)
        place.finish(home)
        stores += 1
    print(
        f"{len(times)} interrupts of {stores} extractions: {sum(times) / len(times):.2f} s, at most {max(times):.2f} s"
    )


@pytest.mark.parametrize(("seconds", "ended"), [(1.0, "imported\n"), (60.0, "")])
def test_an_import_comes_to_its_end_first_but_not_for_ever(tmp_path, seconds, ended):
    """An interrupt amid the initialisation of native code ends in its "terminate called", and nothing is tidied up."""
    (tmp_path / "slow.py").write_text(
        f"import time\nprint('importing', flush=True)\nend = time.monotonic() + {seconds}\n"
        "while time.monotonic() < end:\n    time.sleep(0.01)\nprint('imported', flush=True)\n"
    )
    code = """
from dynaprop.flows.terminal import interrupts
interrupts._IMPORTING = 2.0
with interrupts.interruptible("stopped", patience=2.0):
    try:
        import slow
        while True:
            pass
    finally:
        print("tidied up", flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "importing\n"
        for _ in range(3):
            program.send_signal(signal.SIGINT)
            time.sleep(0.1)
        shown, said = program.communicate(timeout=30)
    assert (program.returncode, said) == (130, "stopped\n")
    assert shown == (f"{ended}tidied up\n" if ended else "")


def test_a_closed_terminal_is_an_interrupt_even_before_its_signal_comes(tmp_path):
    """The kernel first makes writing fail, then sends SIGHUP; between them a command may come to its end."""
    code = """
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
from dynaprop.flows import cli
def app(**_):
    print("ready", flush=True)
    while os.isatty(2):
        time.sleep(0.01)
    print("features", flush=True)
cli.app = app
cli.main()
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    terminal = Terminal([sys.executable, "-c", code], environment=environment, folder=tmp_path)
    while "ready" not in terminal.shown:
        time.sleep(0.05)
        assert terminal.process.poll() is None, terminal.shown
    terminal.close()
    assert terminal.finish() == (129, "ready\r\n")


def test_the_server_of_a_killed_command_ends():
    """SIGKILL leaves the command no chance to end it."""
    code = (
        "from dynaprop.flows.terminal.environment import prepare_environment\n"
        "prepare_environment(verbose=False)\n"
        "import time\n"
        "from dynaprop.flows.server.own_server import prefect_server\n"
        "with prefect_server():\n"
        "    from prefect import get_client\n"
        "    with get_client(sync_client=True) as client:\n"
        "        print(client.api_healthcheck(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "None\n"  # no error
    assert len(session(command.pid)) == 2
    command.kill()
    command.communicate()
    end = time.monotonic() + 20
    while session(command.pid):
        assert time.monotonic() < end, "the server outlives its command"
        time.sleep(0.05)
