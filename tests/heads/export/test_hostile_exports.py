"""Exports that ask for more than any model needs: refused by the field's name within seconds, and no memory taken."""

import copy
import json
import random
import resource
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from dynaprop.heads.export.model_folder import read_export
from dynaprop.heads.export.record import ModelRecord
from dynaprop.heads.recognise.recogniser import load_export
from dynaprop.pipeline.errors import DynapropError
from tests.heads.export.test_model_folder import rewrite
from tests.heads.tiny_model import write_tiny
from tests.pipeline.videos import write_video

INF, NAN = float("inf"), float("nan")
VALUES = [
    *(
        0,
        -1,
        1,
        2,
        7,
        4096,
        10**6,
        2**31,
        2**63,
        2**64,
        10**30,
        10**400,
        0.5,
        -0.5,
        1e-308,
        1e-6,
        1e308,
        INF,
        -INF,
        NAN,
    ),
    *(
        None,
        True,
        False,
        "",
        "x",
        "../x",
        "\x1b[31m",
        "0" * 64,
        "x" * 100_000,
        [],
        {},
        [1],
        [0.5] * 3,
        {"a": 1},
        [[]] * 50,
    ),
]
SECONDS = 20  # on a busy machine; each takes some milliseconds on an idle one
MEMORY = 2**30


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "model")


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where something stands in a json: every key and every index."""
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(below, (*path, key))


def mutations(record: dict, rng: random.Random) -> Iterator[tuple[tuple, Any, dict]]:
    """Each place with each value, without it, and two places with each other's; in random order."""
    where = list(places(record))
    jobs = [(path, value) for path in where for value in VALUES] + [(path, KeyError) for path in where]
    rng.shuffle(jobs)
    for path, value in jobs:
        mutant = copy.deepcopy(record)
        holder = mutant
        for key in path[:-1]:
            holder = holder[key]
        if value is KeyError:
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(value)
        yield path, value, mutant


def test_any_field_with_any_value_is_read_or_refused_in_one_line(folder, made):
    """Signed anew each time, as by somebody who wants it to pass."""
    path = folder / "model.json"
    record = json.loads((made / "model.json").read_text())
    refused = read = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for where, value, mutant in mutations(record, random.Random(17)):
        if refused + read == 600:
            break
        path.write_text(json.dumps(mutant))
        try:
            mutant["record_sha256"] = ModelRecord.model_validate_json(path.read_bytes()).digest()
            path.write_text(json.dumps(mutant))
        except ValidationError:
            pass
        began = time.monotonic()
        try:
            read_export(folder)
            read += 1
        except DynapropError as error:
            refused += 1
            assert "\n" not in str(error) and "model.json" in str(error), (where, value)
        assert time.monotonic() - began < SECONDS, (where, value)
    assert refused > 300 and read > 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["backbones"]["student"].update(size=4096), r"student\.size: .* less than or equal to 1024"),
        (lambda r: r["backbones"]["student"].update(gmacs=INF), r"student\.gmacs: Input should be a finite number"),
        (lambda r: r["backbones"]["teacher"].update(gmacs=1e5), r"teacher\.gmacs: .* less than or equal to 2000"),
        (lambda r: r["backbones"]["teacher"].update(channels=10**9), r"teacher\.channels: .* less than or equal"),
        (lambda r: r["backbones"]["teacher"].update(std=[0.2, 0, 0.2]), r"teacher\.std\.1: .* greater than or equal"),
        (lambda r: r.update(gmacs=NAN), "gmacs: Input should be a finite number"),
        (lambda r: r.update(n_s=10**12), "n_s: Input should be less than or equal to"),
        (lambda r: r["model"].update(key_dim=10**12), r"key_dim: .* less than or equal to 1000000"),
        (lambda r: r["model"]["teacher"].update(n_classes=10**12), r"n_classes: .* less than or equal to 1000000"),
        (lambda r: r["grid"].update(clip_seconds=1e-320), r"clip_seconds: .* greater than or equal to 0.000001"),
        (lambda r: r["grid"].update(max_clips=10**12), r"max_clips: .* less than or equal to 10000000"),
        (lambda r: r.update(class_names=["x"] * 100_001), r"class_names: .* at most 100000 items"),
    ],
)
def test_what_an_export_may_ask_for_is_said(folder, change, message):
    rewrite(folder, change, sign=False)  # a record that is none has no signature
    with pytest.raises(DynapropError, match=message) as error:
        read_export(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("n", "size", "message"),
    [
        (10_000, 224, "student: 10,000 frames of size 224 take 1,505,280,000 bytes a video, at most 1,073,741,824"),
        (20_000, 32, "student: 20,000 frames of a video, at most 16,384"),
    ],
)
def test_frames_that_take_all_memory_are_refused(folder, n, size, message):
    def change(record):
        record["n_s"] = record["grid"]["max_clips"] = n
        record["backbones"]["student"]["size"] = size

    rewrite(folder, change, sign=False)
    with pytest.raises(DynapropError, match=message):
        read_export(folder)


def test_frames_that_the_grid_does_not_give_are_no_matter(folder, tmp_path):
    """An export of before, whose recipe asked for all frames there are."""
    rewrite(folder, lambda r: r.update(n_s=10**9))
    with load_export(folder, device="cpu", workers=1) as recogniser:
        (answer,) = recogniser.predict([write_video(tmp_path / "video.mp4")])
    assert answer.error is None and answer.frames["student"] <= 40


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("vit_giant_patch14_clip_224", "gives 1408 channels, not 256"),
        ("vit_base_patch16_224", "gives 768 channels, not 256"),
    ],
)
def test_a_network_is_not_built_for_weights_that_are_not_there(folder, model, message):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rewrite(folder, lambda r: r["backbones"]["student"].update(model=model, size=224))
    with pytest.raises(DynapropError, match=message):
        read_export(folder)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY // 4
