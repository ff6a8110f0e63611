"""Names of files and classes that would command a terminal, and terminals and locales that know few characters."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from dynaprop.flows.terminal.printing import print_table
from tests.flows.conftest import CATALOG

_CLASSES = ("a\x1b]0;title\x07", "b\x1b[31mred[red]$x$", "c\u202e\u200b\x9b31m:smile:\nerror: [/]")
_FILE = "{}\x1b[2J\x07[bold]\r.mp4"
_BAD = "bad\x1b[31m\x07\x7f\x9b\u2066\nfeatures: all\x08.mp4"

# What rich draws progress with: colours, moves of the cursor, parts of a line deleted, and the cursor hidden and shown.
_DRAWN = re.compile(r"\x1b\[(?:[0-9;]*m|[0-9]*[AK]|\?25[lh])|\r")


@pytest.fixture
def hostile(workplace) -> Path:
    """The tiny dataset under names of the worst kind, and a file a class that is no video."""
    for label, name in zip("abc", _CLASSES, strict=True):
        folder = (workplace / "videos" / label).rename(workplace / "videos" / name.replace("/", "|"))
        for video in sorted(folder.iterdir()):
            video.rename(folder / _FILE.format(video.stem))
        (folder / _BAD).write_bytes(b"no video")
    return workplace


def unseen(text: str) -> set[str]:
    return {character for character in text if not character.isprintable() and character != "\n"}


def test_no_command_prints_a_name_raw(dynaprop, hostile):
    for arguments, code, said in (
        (("extract", "videos", "--dry-run"), 0, "18 videos"),
        (("extract", "videos"), 0, r"failed: a\x1b]0;title\x07/bad\x1b[31m\x07\x7f\x9b\u2066\nfeatures: all\x08.mp4: "),
        (("datasets", "--failed"), 0, r"failed: b\x1b[31mred[red]$x$/bad\x1b[31m"),
        (("train", "videos"), 0, r"have no features: a\x1b]0;title\x07/bad"),
        (("verify", "videos", "--deep"), 0, "0 problems"),
        (("transcode", "videos"), 0, r"a\x1b]0;title\x07/bad\x1b[31m"),
        (("report", "videos"), 0, "report.html"),
        (("export", "videos"), 0, "model: "),
        (("predict", "videos", "videos"), 1, r"b\x1b[31mred[red]$x$"),
        (("predict", "videos", "videos", "--json"), 1, r"\u001b[31mred[red]$x$"),
        (("predict", "videos", str(hostile / "gone\x1b[2J.mp4")), 1, r"gone\x1b[2J.mp4"),
        (("extract", "no\x1b[2Jsuch\x07"), 2, r"no\x1b[2Jsuch\x07"),
        (("extract", "no\x1b[2Jsuch\x07", "-v"), 2, r"no\x1b[2Jsuch\x07"),
        (("extract", "videos", "more\x1b]0;title\x07"), 2, r"more\x1b]0;title\x07"),
        (("extract", "--\x1b[31m"), 2, r"\x1b[31m"),
        (("nosuch\x1b[31m",), 2, r"nosuch\x1b[31m"),
    ):
        outcome = dynaprop(*arguments)
        assert outcome.code == code, (arguments, outcome.err)
        assert said in outcome.out + outcome.err, (arguments, outcome.out, outcome.err)
        assert not unseen(outcome.out + outcome.err), arguments
        assert not re.search(r"^(error: \[/\]|features: all)", outcome.out + outcome.err, re.MULTILINE), arguments
    (page,) = hostile.glob("runs/*/report.html")
    assert not unseen(page.read_text(encoding="utf-8").replace("\u00a0", " "))
    (card,) = hostile.glob("exported/*/README.md")
    assert not unseen(card.read_text(encoding="utf-8"))
    assert r"b\\x1b\[31mred\[red\]\$x\$" in card.read_text(encoding="utf-8")


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dynaprop.flows.cli", *arguments]
    root = str(Path(__file__).resolve().parents[2])
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    surroundings = {**own, "PYTHONPATH": root, "DYNAPROP_HOME": str(folder), **environment}
    return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, timeout=250)


def test_prefects_log_on_the_terminal_is_harmless(prefect_server, hostile):
    from prefect.settings import PREFECT_API_URL

    done = run(hostile, "extract", "videos", "-v", PREFECT_API_URL=PREFECT_API_URL.value())
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    assert "| INFO" in said and r"failed: a\x1b]0;title\x07/bad" in said
    assert not unseen(said)


def test_a_table_keeps_the_lines_of_its_caption_and_its_sections(capsys):
    table = Table("a wide column for the model", title="a\nb", caption="first\nsecond\x1b[31m")
    table.add_row("one\nline", end_section=True)
    table.add_row("chance")
    print_table(table)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == r"a\nb"
    assert lines[-2:] == ["first", r"second\x1b[31m"]
    row = next(number for number, line in enumerate(lines) if r"one\nline" in line)
    assert set(lines[row + 1]) <= set("├─┤")
    assert "chance" in lines[row + 2]


def test_a_terminal_gets_no_more_than_what_progress_is_drawn_with(dynaprop, hostile):
    assert dynaprop("extract", "videos").code == 0
    for arguments in (("datasets", "--failed"), ("verify", "videos"), ("extract", "videos", "mo\x1b]0;title\x07re")):
        parent, child = pty.openpty()
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": root, "TERM": "xterm-256color", "COLUMNS": "300"}
        process = subprocess.Popen(
            [sys.executable, "-m", "dynaprop.flows.cli", *arguments],
            cwd=hostile,
            env=environment,
            stdin=child,
            stdout=child,
            stderr=child,
        )
        os.close(child)
        data = b""
        try:
            while part := os.read(parent, 65536):
                data += part
        except OSError:  # the other end is closed
            pass
        os.close(parent)
        process.wait(60)
        said = data.decode()
        assert not unseen(_DRAWN.sub("", said)), arguments
        assert "title" in said or arguments[0] == "verify"
        assert "\x1b[31mred" not in said and "\x1b[2J" not in said


_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


def test_no_locale_and_no_encoding_loses_work(dynaprop, workplace):
    """Class names are of a list, in UTF-8; file names are ASCII."""
    names = ("Füße", "走る", "c")
    lines = [f"{label}/{n}.mp4 {names['abc'.index(label)]}" for label in "abc" for n in range(5)]
    (workplace / "videos" / "train.txt").write_text("\n".join(lines[:3] + lines[5:8] + lines[10:13]), encoding="utf-8")
    (workplace / "videos" / "test.txt").write_text("\n".join(lines[3:5] + lines[8:10] + lines[13:]), encoding="utf-8")
    (workplace / "videos" / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    lists = "annotations: {format: list, train: train.txt, test: test.txt, classes: classes.txt}"
    catalog = CATALOG.replace("{root: videos,", f"{{root: videos, {lists},")
    (workplace / "catalog.yaml").write_text(catalog, encoding="utf-8")
    assert dynaprop("extract", "tiny").code == 0
    done = run(workplace, "train", "tiny", "--seeds", "2", **_C)
    assert done.returncode == 0, done.stderr.decode()
    assert b" +/- " in done.stdout and done.stdout.isascii() and done.stderr.isascii()
    for encoding, sign in (("ascii", b"+/-"), ("cp437", b"\xf1")):
        done = run(workplace, "train", "tiny", "--seeds", "2", PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr.decode()
        assert sign in done.stdout, encoding
    exported = run(workplace, "export", "tiny", **_C)
    assert exported.returncode == 0, exported.stderr.decode()
    (card,) = workplace.glob("exported/*/README.md")
    assert "Füße" in card.read_text(encoding="utf-8")
    predicted = run(workplace, "predict", "tiny", "videos/a", **_C)
    assert predicted.returncode == 0 and predicted.stdout.isascii(), predicted.stderr.decode()
    answer = run(workplace, "predict", "tiny", "videos/a/0.mp4", "--json", **_C).stdout
    assert json.loads(answer)["class"] in names


def test_a_locale_that_is_not_utf8_is_called_so(workplace):
    (workplace / "videos" / "a" / "0.mp4").rename(workplace / "videos" / "a" / "é.mp4")
    for arguments, place in (
        (("extract", "tiny", "--dry-run"), "videos: this process's locale is not UTF-8"),
        (("extract", "vidéos"), "the command line: this process's locale is not UTF-8"),
    ):
        done = run(workplace, *arguments, **_C)
        said = done.stderr.decode("ascii")
        assert done.returncode == 2 and place in said, said
        assert "rename" not in said and "set LC_ALL=C.UTF-8 or PYTHONUTF8=1" in said
        assert said.count("\n") == 1
    done = run(workplace, "extract", "tiny", "--dry-run", **{**_C, "PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr.decode()
    done = run(workplace, "extract", "tiny", "--dry-run", **{**_C, "DYNAPROP_HOME": str(workplace / "hé")})
    assert b"DYNAPROP_HOME: this process's locale" in done.stderr


def test_a_file_name_that_is_not_utf8_is_still_the_files_own(workplace):
    os.rename(workplace / "videos" / "a" / "0.mp4", os.fsencode(workplace / "videos" / "a") + b"/\xff.mp4")  # noqa: PTH104
    done = run(workplace, "extract", "tiny", "--dry-run", LC_ALL="C.UTF-8")
    assert done.returncode == 2 and b"is not UTF-8; rename the file" in done.stderr
