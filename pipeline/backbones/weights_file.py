"""What lies in a file of weights, or what the file is instead; nothing in it is run."""

import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynaprop.pipeline.errors import DynapropError

if TYPE_CHECKING:
    import torch  # takes seconds, and the names of files need none of it

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")
"""How the name of a file of weights ends."""

_TENSORS_ALONE = "save the tensors alone, by torch.save(model.state_dict(), FILE)"
_AGAIN = "put the weights there again"
_LONGEST_HEADER = 100_000_000  # bytes, as the library has it


def is_weights_file(name: str) -> bool:
    """Whether a file is named like one of weights."""
    return name.endswith(WEIGHT_SUFFIXES)


def read_weights_file(path: Path) -> "Mapping[str, Any]":
    """Read a file that safetensors or torch.save wrote, whatever its name.

    Args:
        path: the file.

    Returns:
        What was saved: tensors by name, or mappings of them by name, among numbers and the like.

    Raises:
        DynapropError: it is something else, damaged, or holds more than tensors; one line that says what.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if problem := _foreign(start):
        raise DynapropError(f"{path} {problem}")
    if path.suffix == ".safetensors" and not start.startswith(b"PK\x03\x04"):
        return _read_safetensors(path, start)
    if start[8:9] == b"{":  # a header in json after its length: what torch.save writes does not look so
        return _read_safetensors(path, start)
    return _read_torch(path, start)


def _foreign(start: bytes) -> str | None:
    """What a file is that holds no weights, by its first bytes."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return f"is empty: {_AGAIN}"
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a Git LFS pointer, not the weights: run `git lfs pull` in its repository"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")):
        return "is a web page, not weights: download the file itself, which may take a login"
    if text.startswith((b'{"error', b'{"message', b'{"detail')):
        return "is an answer of a web server, not weights: download the file itself"
    return None


def _read_safetensors(path: Path, start: bytes) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:  # the latter two at a type that is not torch's
        if _is_cut_off(path, start):
            raise DynapropError(f"{path} is cut off: {_AGAIN}") from None
        raise DynapropError(f"{path} is damaged ({error}): {_AGAIN}") from None


def _is_cut_off(path: Path, start: bytes) -> bool:
    """Whether a .safetensors file ends before its header or its tensors do."""
    size = path.stat().st_size
    length = int.from_bytes(start[:8], "little")
    if size < 8 or (start[8:9] in (b"", b"{") and size < 8 + length <= _LONGEST_HEADER):
        return True
    if length > _LONGEST_HEADER:
        return False
    with path.open("rb") as file:
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            return size < 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            return False


def _read_torch(path: Path, start: bytes) -> Mapping[str, Any]:
    import torch

    if start.startswith(b"PK\x03\x04") and (problem := _foreign_archive(path)):
        raise DynapropError(f"{path} {problem}")
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # an open file has no name that torch would go by
            warnings.simplefilter("ignore")  # of formats that are refused below
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise  # of this machine, not of the file
    except Exception as error:  # unpickling may raise anything; torch's advice is to switch the safety off
        raise DynapropError(f"{path} {_refusal(str(error), start, _protocol(path, start))}") from None
    if not isinstance(saved, Mapping):
        raise DynapropError(f"{path} holds a {type(saved).__name__}, not tensors by name: {_TENSORS_ALONE}")
    return saved


def _foreign_archive(path: Path) -> str | None:
    """What a zip archive is that torch.save did not write, or only in part."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # the list of its files stands at the end
        return f"is cut off: {_AGAIN}"
    if "constants.pkl" in names:
        return f"is a TorchScript archive, a program beside its weights: {_TENSORS_ALONE}"
    if "data.pkl" not in names:
        return "is a zip archive of something else than weights: unpack it, and name the file of weights in it"
    return None


def _protocol(path: Path, start: bytes) -> int:
    """Of the pickle in which torch.save names the tensors, in an archive or the file itself; 0 where there is none."""
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
                with archive.open(name) as file:
                    start = file.read(2)
        except Exception:  # damaged in one more way
            return 0
    return start[1] if start[:1] == b"\x80" and len(start) > 1 else 0


def _refusal(error: str, start: bytes, protocol: int) -> str:
    """What is wrong with a file that torch refuses, without what torch advises."""
    if found := re.search(r"(?:GLOBAL|class|type) ([A-Za-z_][\w.]*\.[\w.]+)", error):
        name = found[1].rstrip(".")
        if name.startswith(("torch.nn.", "timm.", "torchvision.")):
            return f"holds a whole pickled model ({name}), not weights alone: {_TENSORS_ALONE}"
        return f"holds other Python objects ({name}) than weights, which are not loaded: {_TENSORS_ALONE}"
    if protocol in (3, 4, 5):  # torch.save writes the second unless told otherwise
        return f"is a pickle that torch does not load safely: {_TENSORS_ALONE}"
    if "unexpected EOF" in error or "data was truncated" in error or "Ran out of input" in error or not error:
        return f"is cut off: {_AGAIN}"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return f"is damaged, or no file of weights that torch.save wrote: {_AGAIN}"
    return "is no file of weights, neither safetensors nor what torch.save writes"
