"""Decoding against other decoders, on one core: the second part of `make bench`.

    python -m bench.decode_speed            # four minutes; writes decoding.json and the README's table
    python -m bench.decode_speed --quick    # half a minute; prints only

Of each file 25 frames are wanted, evenly spread over its seconds, and turned into RGB; all readers get the same ones.
With UT-Interaction below $DYNAPROP_DATA real videos are among the files. torchcodec comes with
`pip install 'dynaprop[bench]'` and needs FFmpeg's shared libraries.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from bench.decode_readers import CHECKED, OURS, ReaderTimes
from bench.decode_videos import VideoKind, write_kinds
from bench.machine import describe_machine
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.parser import load_catalog

_COLUMNS = {"plain PyAV": "plain PyAV", "decord": "decord", "torchcodec": "torchcodec", CHECKED: "`decoder: decord`"}
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class KindSpeed:
    """The files of one kind, read by all readers."""

    kind: str
    ordinary: bool
    """As in ``VideoKind``."""
    files: int
    wanted: int
    """Frames."""
    readers: dict[str, ReaderTimes]
    """By name; ours is among them."""


@dataclass(frozen=True)
class DecodeSpeed:
    """All readers on files of all kinds, by turns in one process."""

    pinned: bool
    """Whether the process was kept on one core; else each decoder had one thread, at least."""
    repetitions: int
    versions: dict[str, str]
    """Of the decoders' packages that are installed."""
    kinds: tuple[KindSpeed, ...]


def measure_decode(
    folder: Path, real: Sequence[Path], *, files: int = 4, seconds: int = 30, repetitions: int = 5
) -> DecodeSpeed:
    """Write files of all kinds, and read the wanted frames of each with all readers.

    Args:
        folder: where the files go.
        real: real videos at 30 FPS, or none.
        files, seconds: see ``write_kinds``.
        repetitions: of each reader, by turns, after one read that is compared and does not count.
    """
    kinds = write_kinds(folder, real, files=files, seconds=seconds)
    job = {"kinds": [[str(path.resolve()) for path in kind.paths] for kind in kinds], "repetitions": repetitions}
    command = [sys.executable, "-m", "bench.decode_readers"]
    done = subprocess.run(command, input=json.dumps(job), cwd=_HERE.parent, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    speeds = (_speed(kind, one) for kind, one in zip(kinds, answer["kinds"], strict=True))
    return DecodeSpeed(answer["pinned"], repetitions, _versions(), tuple(speeds))


def _speed(kind: VideoKind, answer: dict) -> KindSpeed:
    readers = {name: ReaderTimes(**times) for name, times in answer["readers"].items()}
    return KindSpeed(kind.name, kind.ordinary, len(kind.paths), answer["wanted"], readers)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("av", "decord", "torchcodec"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def real_videos() -> list[Path]:
    """UT-Interaction's videos by the names of their files, which mixes the classes; none where it is not there."""
    dataset = load_catalog().dataset("ut-interaction")
    if not dataset.root.is_dir():
        return []
    return sorted((video.path for video in read_annotations(dataset).videos), key=lambda path: path.name)


def readme_table(speed: DecodeSpeed) -> str:
    """How many times as fast ours is, a line a kind, and whose frames are the right ones."""
    heads = ["files", "ours, frames/s", *(f"against {name}" for name in _COLUMNS.values())]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for kind in speed.kinds:
        times = kind.readers[OURS]
        cells = [f"{kind.files} {kind.kind}", f"{kind.wanted / times.seconds:.0f}" if times.seconds else times.remark]
        for reader in _COLUMNS:
            ratio, equal = kind.readers[reader].ratio, kind.readers[reader].equal
            wrong = "" if equal == kind.wanted else f", {kind.wanted - equal} of {kind.wanted} frames wrong"
            cells.append(kind.readers[reader].remark if ratio is None else f"{ratio:.2f} x{wrong}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def decode_table(speed: DecodeSpeed) -> Table:
    """All that was measured, a line for each reader of each kind."""
    where = "one core" if speed.pinned else "one thread each, as this system pins no process to a core"
    columns = ("files", "reader", "core seconds", "frames/s", "ours / its speed", "frames equal to a full read")
    versions = ", ".join(f"{package} {number}" for package, number in speed.versions.items())
    title = f"Decoding, 25 frames a file, {where}, medians of {speed.repetitions}; {versions}"
    table = Table(*columns, title=title)
    for kind in speed.kinds:
        label = f"{kind.files} {kind.kind}"
        for name, times in kind.readers.items():
            if times.seconds is None:
                table.add_row(label, name, times.remark, "", "", f"{times.equal}/{kind.wanted}")
            else:
                ratio = "" if name == OURS or times.ratio is None else f"{times.ratio:.2f} x"
                rate = f"{kind.wanted / times.seconds:.0f}"
                table.add_row(label, name, f"{times.seconds:.3f}", rate, ratio, f"{times.equal}/{kind.wanted}")
            label = ""
        table.add_section()
    return table


def main(quick: bool = False) -> None:
    """Measure and print; unless quick, write decoding.json and the README's table."""
    with tempfile.TemporaryDirectory(prefix="dynaprop-bench-") as folder:
        sizes = {"files": 1, "seconds": 10, "repetitions": 1} if quick else {}
        speed = measure_decode(Path(folder), real_videos(), **sizes)
    Console(width=160).print(decode_table(speed))
    if quick:
        return
    machine = describe_machine()
    (_HERE / "decoding.json").write_text(
        json.dumps({"machine": machine, **asdict(speed)}, indent=1) + "\n", encoding="utf-8"
    )
    readme = _HERE.parent / "README.md"
    section = f"<!-- decoding -->\n{readme_table(speed)}\n<!-- /decoding -->"
    text = re.sub(
        "<!-- decoding -->.*<!-- /decoding -->", lambda _: section, readme.read_text(encoding="utf-8"), flags=re.S
    )
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
