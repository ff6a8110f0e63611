"""Files of weights that are none: one line that says what they are, and nothing of torch's advice."""

import argparse
import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from dynaprop.pipeline.backbones.timm_networks import load_network
from dynaprop.pipeline.backbones.weights import find_weights
from dynaprop.pipeline.backbones.weights_file import WEIGHT_SUFFIXES, read_weights_file
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.errors import DynapropError, UsageError

MODEL = "test_resnet"


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return timm.create_model(MODEL, num_classes=0).eval()


def saved(content: object, *, legacy: bool = False, pickle_protocol: int = 2) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=pickle_protocol, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network(), torch.zeros(1, 3, 32, 32)), buffer)
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("resnet/readme.txt", "weights are elsewhere")
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: tensor.numpy() for name, tensor in network().state_dict().items()})
    return buffer.getvalue()


def scrambled() -> bytes:
    data = bytearray(saved(network().state_dict()))
    start = data.index(b"conv1")
    data[start - 40 : start] = bytes(40)  # in the pickle, before its first name
    return bytes(data)


def half_of(data: bytes) -> bytes:
    return data[: len(data) // 2]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 46830571\n" % (b"0" * 64)
NAMESPACE = {"args": argparse.Namespace(lr=0.1)}
FOREIGN: dict[str, tuple[Callable[[], bytes], str]] = {
    "namespace": (
        lambda: saved({"state_dict": network().state_dict(), **NAMESPACE}),
        r"holds other Python objects \(argparse\.Namespace\) than weights, .*: save the tensors alone, by torch\.save",
    ),
    "namespace, old format": (lambda: saved(NAMESPACE, legacy=True), r"other Python objects \(argparse\.Namespace\)"),
    "numpy": (lambda: saved({"conv1.weight": np.zeros(3)}), r"other Python objects \(numpy\.\S+\) than weights"),
    "model": (
        lambda: saved(network()),
        r"a whole pickled model \((timm|torch\.nn)\.\S+\), not weights alone: save the",
    ),
    "model, old format": (lambda: saved(network(), legacy=True), r"a whole pickled model \((timm|torch\.nn)\.\S+\)"),
    "script": (script, r"is a TorchScript archive, .*: save the tensors alone, by torch\.save\(model\.state_dict"),
    **{
        f"pickle, protocol {protocol}": (
            lambda protocol=protocol: pickle.dumps({"conv1.weight": [1.0]}, protocol=protocol),  # type: ignore[misc]
            r"is a pickle that torch does not load safely: save the tensors alone, by torch\.save",
        )
        for protocol in (3, 4, 5)
    },
    "torch, protocol 4": (
        lambda: saved(network().state_dict(), pickle_protocol=4),
        r"is a pickle that torch does not load safely: save the tensors alone, by torch\.save",
    ),
    "list": (lambda: saved([1, 2]), "holds a list, not tensors by name"),
    "html": (lambda: b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page, not weights: download"),
    "xml": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page, not weights"),
    "json": (lambda: b'{"error": "Invalid username or password."}', "is an answer of a web server, not weights"),
    "lfs": (lambda: LFS, r"is a Git LFS pointer, not the weights: run `git lfs pull`"),
    "empty": (lambda: b"", "is empty: put the weights there again"),
    "cut off": (lambda: half_of(saved(network().state_dict())), "is cut off: put the weights there again"),
    "cut off, old format": (lambda: half_of(saved(network().state_dict(), legacy=True)), "is cut off: put"),
    "cut off, safetensors": (lambda: half_of(save(network().state_dict())), "is cut off: put"),
    "header cut off": (lambda: save(network().state_dict())[:100], "is cut off: put"),
    "scrambled": (scrambled, "is damaged, or no file of weights that torch.save wrote: put"),
    "zip": (archive, "is a zip archive of something else than weights"),
    "npz": (arrays, "is a zip archive of something else than weights"),
    "text": (lambda: b"see https://example.org/weights", "is no file of weights, neither safetensors nor what torch"),
    "noise": (lambda: np.random.default_rng(0).bytes(999), "is no file of weights|is damaged"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_file_of_weights_is_one_line_that_says_what_it_is(tmp_path, kind, suffix, recwarn):
    make, message = FOREIGN[kind]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(make())
    if suffix == ".safetensors" and not path.read_bytes().startswith(b"PK"):
        message += r"|is damaged \(.*\): put the weights there again"
    with pytest.raises(DynapropError, match=message) as caught:
        load_network(MODEL, find_weights(str(path), MODEL))
    text = str(caught.value)
    assert text.startswith(str(path)) and text.isprintable() and len(text) < len(str(path)) + 250
    for advice in ("weights_only", "add_safe_globals", "safe_globals", "trust", "pickle.", "pytorch.org"):
        assert advice not in text
    assert [str(warning.message) for warning in recwarn] == []


def test_too_little_memory_is_not_called_damage(tmp_path, monkeypatch):
    def load(*_, **__):
        raise MemoryError

    (tmp_path / "w.pth").write_bytes(saved(network().state_dict()))
    monkeypatch.setattr("torch.load", load)
    with pytest.raises(MemoryError):
        read_weights_file(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", WEIGHT_SUFFIXES)
@pytest.mark.parametrize("kind", ["safetensors", "torch", "torch, old format"])
def test_a_file_is_known_by_its_content(tmp_path, kind, suffix):
    tensors = network().state_dict()
    path = tmp_path / f"w{suffix}"
    path.write_bytes(save(tensors) if kind == "safetensors" else saved(tensors, legacy=kind != "torch"))
    if (kind, suffix) == ("torch, old format", ".safetensors"):
        with pytest.raises(DynapropError, match="is damaged"):
            read_weights_file(path)
        return
    found = read_weights_file(path)
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_header_as_long_as_an_old_pickle_begins_is_still_one(tmp_path):
    """80 02, the first bytes of what torch.save wrote once, are a header's length of 640."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(640)
    (tmp_path / "w.bin").write_bytes(struct.pack("<Q", 640) + header + np.float32(7).tobytes())
    assert read_weights_file(tmp_path / "w.bin") == {"a": torch.tensor([7.0])}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.bin", "w.pth.tar"])
def test_names_that_catalog_and_search_take(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(saved(network().state_dict()))
    assert BackboneSpec(name="x", model=MODEL, size=32, weights=str(path)).require_weights() == str(path)
    assert find_weights(str(path), MODEL).path == path


@pytest.mark.parametrize("name", ["w.tar", "w.zip", "w.npz", "w", "pth", "bin"])
def test_names_that_neither_takes(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(saved(network().state_dict()))
    with pytest.raises(ValueError, match=r"a path or URL ending in \.safetensors, \.pth, \.pt, \.bin, \.pth\.tar"):
        BackboneSpec(name="x", model=MODEL, size=32, weights=str(path))
    with pytest.raises(UsageError, match=r"neither package:NAME, timm nor a \.safetensors/\.pth/\.pt/\.bin/\.pth\.tar"):
        find_weights(str(path), MODEL)


def test_a_package_is_searched_for_no_other_names_than_before(tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.bin").write_bytes(b"something of its own")
    (package / "model.pth").write_bytes(saved(network().state_dict()))
    monkeypatch.syspath_prepend(tmp_path)
    located = find_weights("package:some_weights", MODEL)
    assert located.path == Path(package / "model.pth") and located.in_order
