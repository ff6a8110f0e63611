"""Mutated label files and catalogs: each is read, or refused in one line, and nothing outside is looked at."""

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.errors import DynapropError
from tests.pipeline.audit import audited

SECONDS = 10  # for one input; in fact the slowest takes a fraction of a second
SHORT, LONG = 48, 950  # inputs of a kind, of which there are 11

Files = dict[str, bytes]

_VIDEOS = ["run/v_run_g01_c01.mp4", "run/v_run_g01_c02.mp4", "jump/v_jump_g01_c01.mp4", "jump/v_jump_g02_c01.avi"]


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


_CLASSES = _lines("jump", "run", "stand still")
_DATABASE = {
    "version": "1.3",
    "taxonomy": [{"nodeId": 0, "parentId": None}],
    "database": {
        name: {
            "subset": subset,
            "duration": 12.5,
            "url": "https://example.org",
            "annotations": [{"label": "run", "segment": [0.5, 2.0]}, {"label": "jump", "segment": [3, 4]}],
        }
        for name, subset in (("v_run_g01_c01", "training"), ("v_jump_g01_c01", "validation"), ("x", "testing"))
    },
}
_CATALOG = {
    "datasets": {
        "birds": {
            "root": "${BIRDS:-/data}/birds",
            "annotations": {"format": "list", "classes": "../classes.txt", "train": "train.txt"},
            "group": r"(g\d+)",
            "min_clips": 25,
            "clip_seconds": 1.5,
            "note": "of the zoo",
        },
        "sample": {"root": "sample", "generate": {"videos_per_class": 8, "seed": 0}},
    },
    "backbones": {
        "light": {"model": "test_efficientnet", "size": 112, "weights": "random", "gflops_paper": 0.1},
        "heavy": {"model": "test_resnet", "size": 224, "weights": "timm", "mean": [0.5, 0.5, 0.5], "std": [1.0, 1, 1]},
    },
    "recipes": {"pair": {"student": "light", "teacher": "heavy", "lr": 1e-4, "milestones": [15, 30]}},
    "sweeps": {
        "short": {"rows": [{"models": ["teacher", "dynamic"], "frames": [[8, 2]], "fusion": ["none"]}], "seeds": 2},
        "both": {"include": ["short"]},
    },
}

_LISTS = {"classes": "../labels/classes.txt", "train": "../labels/train.txt"}

# What is mutated, and the keys of the dataset's entry.
FORMATS: dict[str, tuple[Files, dict[str, Any]]] = {
    "folder": ({}, {"format": "folder"}),
    "list": (
        {"classes.txt": _CLASSES, "train.txt": _lines(*(f"{path} {path.split('/')[0]}" for path in _VIDEOS))},
        {"format": "list", **_LISTS},
    ),
    "activitynet": (
        {"videos.json": json.dumps(_DATABASE, indent=1).encode()},
        {"format": "activitynet", "file": "../labels/videos.json"},
    ),
    "kinetics": (
        {
            "train.csv": _lines(
                "label,youtube_id,time_start,time_end,split",
                '"run, fast",abc,0,10,train',
                "jump,-x_,5,15,train",
                "run,abc,10,20,train",
            )
        },
        {"format": "kinetics", "train": "../labels/train.csv"},
    ),
    "arnet-activitynet": (
        {"classes.txt": _CLASSES, "train.txt": _lines("run/a,30,1", "run/b,20,1,0", "jump/c,1,0,1,2")},
        {"format": "arnet-activitynet", **_LISTS, "fps": 30.0},
    ),
    "arnet-mini-kinetics": (
        {"classes.txt": _CLASSES, "train.txt": _lines("stand still/a 30 2", "run/b 20 1", "jump/c 1 0")},
        {"format": "arnet-mini-kinetics", **_LISTS, "fps": 30.0},
    ),
    "mmaction2": (
        {"classes.txt": _CLASSES, "train.txt": _lines(*(f"{path} {path.startswith('r'):d} 2" for path in _VIDEOS))},
        {"format": "mmaction2", **_LISTS},
    ),
    "mmaction2-frames": (
        {"classes.txt": _CLASSES, "train.txt": _lines("run/a 30 1", "run/b 20 1 0", "jump/c 1 0")},
        {"format": "mmaction2", **_LISTS, "frames": "img_{:05d}.jpg", "fps": 30.0},
    ),
    "ucf101": (
        {
            "classes.txt": _lines("1 jump", "2 run"),
            "train.txt": _lines(*(f"{path} {1 + path.startswith('r')}" for path in _VIDEOS)),
        },
        {"format": "ucf101", **_LISTS},
    ),
    "hmdb51": (
        {
            "run_test_split1.txt": _lines("v_run_g01_c01.mp4 1", "v_run_g01_c02.mp4 2"),
            "jump_test_split1.txt": _lines("v_jump_g01_c01.mp4 1 ", "v_jump_g02_c01.avi 0"),
        },
        {"format": "hmdb51", "splits": "../labels"},
    ),
}


def _nested(form: str, inner: str, name: str) -> list[str]:
    """Twelve entries, each of nine aliases of the one before."""
    aliases = [", ".join([f"*{name}{number - 1}"] * 9) if number else "" for number in range(12)]
    return [
        f"{name}{number}: &{name}{number} {form % alias if alias else inner}" for number, alias in enumerate(aliases)
    ]


# Pieces that files should not hold.
_ODD = [
    *(b"\0", b"\x1b[2J", b"\x07", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b"\t"),
    *("\x0b", "\x85", "\u2028", "\u202e", "\u00e9", "e\u0301", "💥", "'", '"', ",", "`", "\\", "%s", "{:05d}"),
    *("..", "../", "/", "/../../secret/x.mp4", "../secret/x.mp4", "../../secret", "SECRET/x.mp4", "~", "", "${HOME}"),
    *("-1", "0", "1", "1e400", "NaN", "Infinity", "null", "true", "9" * 30, "9" * 5000, "0x" + "f" * 5000, "1:" * 500),
    *("x" * 300, "x" * 100_000, ".mp4" * 5000, " .mp4 " * 5000, "[" * 3000, '{"a":' * 3000, "]" * 50, "- " * 3000),
    *("{", "}", "[", "]", ":", "? ", "!!python/object/apply:os.mkdir [SECRET/made]", "!!python/name:os.system", "!x y"),
    *("!!int ''", "!!timestamp x", "!!bool x", "!!float x", "!!binary é", "!!set {a, b}", "!!omap [a: 1]"),
    *("&a", "*a", "<<: *a", "&a [*a]", "2020-99-99", "---\n", "...\n", "%YAML 9.9\n", "# ", "|", ">", "@"),
    "\n".join(_nested("[%s]", "[ha]", "l")),
    "{" + ", ".join(_nested("[%s]", "[ha]", "l")) + "}",
    "{" + ", ".join(_nested("{<<: [%s]}", "{a: b}", "m")) + "}",
]  # fmt: skip
_ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2**70, 1e308, float("nan"), float("inf")),
    *("", " ", "..", "a/b", "/", "\ud800", "\0", "x" * 50_000),
    *([], {}, [[]], [None], {"": None}, [1] * 2000, [{"label": "run"}], {"format": "list"}, [[[[[[[[[[1]]]]]]]]]]),
    *("../secret/x", "SECRET/x", "run", "jump", "training", "light", "${HOME}", "package:x", "x.pth", "1e-4"),
    *("(", "(a+)+$"),
]  # fmt: skip


def mutated(data: bytes, rng: random.Random, secret: str) -> bytes:
    """The file after one to four mutations."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_MUTATIONS)(data, rng)
    return data.replace(b"SECRET", secret.encode())


def _odd(rng: random.Random) -> bytes:
    piece = rng.choice(_ODD)
    return piece if isinstance(piece, bytes) else piece.encode()


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(data))
    return data[:place] + _odd(rng) + data[place:]


def _replace_token(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("latin-1")
    separators = [-1, *(place for place, character in enumerate(text) if character in ' ,\n"/:'), len(text)]
    at = rng.randrange(len(separators) - 1)
    return data[: separators[at] + 1] + _odd(rng) + data[separators[at + 1] :]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(data), rng.randint(1, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _move_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    line = rng.choice(lines)
    if rng.random() < 0.5:
        lines.remove(line)
    lines[(place := rng.randint(0, len(lines))) : place] = [line] * rng.choice((0, 1, 1, 2, 500))
    return b"".join(lines)


def _repeat(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randint(0, len(data))
    part = data[begin : begin + rng.randint(1, 20)]
    return data[:begin] + part * rng.choice((2, 3, 1000)) + data[begin:]


def _change_value(data: bytes, rng: random.Random) -> bytes:
    """In a file of json or of yaml: another value somewhere; elsewhere nothing."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    holder, depth = document, rng.randint(0, 6)
    while isinstance(holder, dict | list) and holder:
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if depth == 0 or not isinstance(holder[key], dict | list) or not holder[key]:
            holder[key] = rng.choice(_ODD_VALUES)
            break
        holder, depth = holder[key], depth - 1
    return json.dumps(document, indent=rng.choice((None, 1))).encode()


_MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    *(_insert, _insert, _replace_token, _replace_token, _change_value, _change_value),
    *(_truncate, _flip, _move_lines, _repeat),
]


class Trial:
    """A folder to read from, a secret beside it, and what must not happen."""

    def __init__(self, folder: Path) -> None:
        self.root, self.labels, self.secret = folder / "data" / "root", folder / "data" / "labels", folder / "secret"
        self._secrets = (str(self.secret), str(folder / "data" / "secret"))
        self.slowest = 0.0
        for place in (*_VIDEOS, "run/a/img_00001.jpg", "jump/c/image_00001.jpg"):
            _touch(self.root / place)
        _touch(self.secret / "x.mp4")
        _touch(folder / "data" / "secret" / "x.mp4")
        self.labels.mkdir()

    def dies_politely(self, function: Callable[[], Any], seed: int) -> Any:
        """Call a function; return what it returns, or None where it refuses in one line."""
        began = time.perf_counter()
        try:
            with audited(self._look):
                return function()
        except DynapropError as error:
            message = str(error)
            assert message.isprintable() and 0 < len(message) <= 1000, f"seed {seed}: {message[:2000]!r}"
        finally:
            self.slowest = max(self.slowest, time.perf_counter() - began)
            assert self.slowest < SECONDS, f"seed {seed}: {self.slowest:.1f} s"

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir", "os.mkdir") and isinstance(arguments[0], str | bytes | Path):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            assert not path.startswith(self._secrets), f"{event} of {arguments[0]!r}"


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def fuzz_labels(name: str, folder: Path, seeds: range) -> Trial:
    """Read mutated files of a format, each as if it were the dataset's."""
    trial = Trial(folder)
    files, keys = FORMATS[name]
    for file, data in files.items():
        (trial.labels / file).write_bytes(data)
    spec = DatasetSpec.model_validate({"name": "fuzz", "root": str(trial.root), "annotations": keys})
    assert read_annotations(spec).class_names  # before anything is mutated
    for seed in seeds:
        rng = random.Random(seed)
        file = rng.choice(sorted(files))
        (trial.labels / file).write_bytes(mutated(files[file], rng, str(trial.secret)))
        annotations = trial.dies_politely(lambda: read_annotations(spec), seed)
        for video in (annotations.videos + annotations.absent) if annotations else ():
            assert ".." not in video.path.parts and video.path.is_relative_to(trial.root), f"seed {seed}: {video}"
        (trial.labels / file).write_bytes(files[file])
    return trial


def fuzz_folder(folder: Path, seeds: range) -> Trial:
    """Read folders whose files are named by mutated names; those that no file can have are left out."""
    for seed in seeds:
        rng = random.Random(seed)
        trial = Trial(folder / str(seed))
        spec = DatasetSpec(name="fuzz", root=trial.root)
        for path in _VIDEOS:
            name = os.fsdecode(mutated(os.fsencode(path), rng, str(trial.secret))[:200])
            try:
                _touch(trial.root / name.replace("..", "_").lstrip("/"))
            except (OSError, ValueError):
                continue
        trial.dies_politely(lambda spec=spec: read_annotations(spec), seed)
    return trial


def fuzz_catalog(folder: Path, seeds: range) -> Trial:
    """Parse mutated catalogs, of the style of json and of yaml's own."""
    trial = Trial(folder)
    styles = [json.dumps(_CATALOG, indent=1).encode(), yaml.safe_dump(_CATALOG).encode()]
    file = folder / "data" / "catalog.yaml"
    for style in styles:
        file.write_bytes(style)
        assert load_catalog(file).sweeps
    for seed in seeds:
        rng = random.Random(seed)
        file.write_bytes(mutated(styles[seed % 2], rng, str(trial.secret)))
        trial.dies_politely(lambda: load_catalog(file), seed)
        assert not (trial.secret / "made").exists()
    return trial


def fuzz(kind: str, folder: Path, seeds: range) -> Trial:
    """Try one mutated input for each seed."""
    if kind == "catalog":
        return fuzz_catalog(folder, seeds)
    return fuzz_folder(folder, seeds) if kind == "folder" else fuzz_labels(kind, folder, seeds)


@pytest.mark.parametrize("kind", [*FORMATS, "catalog"])
def test_mutated_input_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, range(SHORT))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FORMATS, "catalog"])
def test_ten_thousand_mutated_inputs(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, range(SHORT, SHORT + LONG))
