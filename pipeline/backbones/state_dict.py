"""The tensors of a network among what a file of weights holds, under whatever names training left them."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

from dynaprop.pipeline.backbones.fit import build_network
from dynaprop.pipeline.backbones.weights_file import read_weights_file
from dynaprop.pipeline.errors import DynapropError

_USUAL = ("state_dict", "model")  # what is wrapped so is taken, whatever else the file holds
_DEPTH = 4  # of wrappers in one another
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # others come with scales beside them
_COUNTER = "num_batches_tracked"  # of batch normalisation: only training reads it, and not everybody saves it

Tensors = Mapping[str, torch.Tensor]
Kind = tuple[torch.Size, bool, bool]
Kinds = Mapping[str, Sequence[Kind]]


def load_state_dict(
    network: torch.nn.Module, model: str, path: Path, *, in_order: bool = False, img_size: int | None = None
) -> torch.nn.Module:
    """Load a file of weights into a network.

    Tensors are found by the network's names and shapes, in whatever mapping (``state_dict``, ``model``, ``teacher``)
    and behind whatever prefix (``module.``, ``backbone.``) all of them are; what else is there, such as a classifier,
    is left, unless it shows that they are a deeper network's, or mean something only together with it. Where several
    sets fit and differ, such as a student's and a teacher's, none is taken.

    Args:
        network: timm's model.
        model: its name.
        path: the file.
        in_order: the tensors match by position, not by name.
        img_size: what the network was built for; None for timm's own size.

    Returns:
        The network, or, where embeddings had to be resampled, another one that timm built with them.

    Raises:
        DynapropError: the file is none of weights, its tensors are not the network's, or they are not finite.
    """
    saved = read_weights_file(path)
    expected = network.state_dict()
    kinds = {name: [_kind(tensor)] for name, tensor in expected.items()}
    if img_size is not None and not in_order:
        with torch.device("meta"):
            for name, tensor in build_network(model).state_dict().items():
                kinds.get(name, []).append(_kind(tensor))
    if in_order:
        # The packages name tensors their own way; order and shapes are the same. The classifier comes last.
        place = _usual_place(saved)
        ordered = next(tensors for keys, tensors in _sets(saved) if keys == place)
        found, wrong = _checked(dict(zip(expected, ordered.values(), strict=False)), kinds)
    else:
        found, wrong = _find(saved, kinds, path, partial(_foreign, network, model))
    if wrong:
        example = wrong[0] + (f", which is {odd}" if (odd := wrong[0] in found and _odd(found[wrong[0]])) else "")
        raise DynapropError(f"{path}: not weights of timm's {model} ({len(wrong)} tensors differ, e.g. {example})")
    for name, tensor in found.items():
        if not torch.isfinite(tensor.float()).all():
            raise DynapropError(f"{path}: {name} holds numbers that are not finite: take weights of another training")
    if any(tensor.shape != expected[name].shape for name, tensor in found.items()):
        return _resampled(found, model, path, img_size)
    network.load_state_dict({**expected, **found})
    return network


def _kind(tensor: torch.Tensor) -> Kind:
    """What a tensor has to have in common with the network's; not how exact its numbers are."""
    return tensor.shape, tensor.is_floating_point() or not tensor.dim(), tensor.layout == torch.strided


def _odd(tensor: torch.Tensor) -> str:
    """Why a tensor does not hold a layer's numbers, for messages; empty where it does."""
    if tensor.is_nested:  # first: the others may lack even a shape
        return "nested"
    if tensor.is_meta:
        return "on torch's meta device, without its numbers"
    if tensor.is_floating_point() and tensor.dtype not in _PRECISIONS:
        return f"of {tensor.dtype}"
    return ""


def _checked(found: Tensors, kinds: Kinds) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Tensors without counters that are none, and the names of those that are missing or another network's."""
    wrong = {name for name in kinds if name not in found or _odd(found[name]) or _kind(found[name]) not in kinds[name]}
    counters = {name for name in wrong if name.endswith(_COUNTER)}
    kept = {name: tensor for name, tensor in found.items() if name not in counters}
    return kept, [name for name in kinds if name in wrong - counters]


def _find(
    saved: Mapping[str, Any], kinds: Kinds, path: Path, foreign: Callable[[Iterable[str]], list[str]]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A network's tensors and the names of those that are wrong, of the set that has the fewest.

    Args:
        saved: what the file holds.
        kinds: what each tensor may be.
        path: the file.
        foreign: those among the other names behind a prefix that only another network has.

    Raises:
        DynapropError: several sets fit, and their tensors are not the same.
    """
    usual = _usual_place(saved)
    fitting: dict[str, dict[str, torch.Tensor]] = {}
    nearest: tuple[dict[str, torch.Tensor], list[str]] = {}, list(kinds)
    fewest = len(kinds)
    for keys, tensors in _sets(saved):
        for prefix in _prefixes(tensors, kinds):
            behind = {name: tensors[prefix + name] for name in kinds if prefix + name in tensors}
            found, wrong = _checked(behind, kinds)
            lacking = len(wrong)
            if not wrong:
                strings = (name for name in tensors if isinstance(name, str) and name.startswith(prefix))
                names = (name.removeprefix(prefix) for name in strings)
                wrong = foreign(name for name in names if name not in kinds)
            if not wrong:
                if keys == usual and not prefix:
                    return found, []
                fitting[" > ".join([*keys, f"{prefix}*"] if prefix else keys) or "the top level"] = found
            elif lacking < fewest:
                nearest, fewest = (found, wrong), lacking
    if not fitting:
        return nearest
    first, *others = fitting.values()
    if not all(_same(first, other) for other in others):
        raise DynapropError(
            f"{path} holds several sets of these weights ({', '.join(fitting)}): save the one that is meant alone"
        )
    return first, []


def _foreign(network: torch.nn.Module, model: str, names: Iterable[str]) -> list[str]:
    """Names, of none of a network's tensors, that show that the others are another network's."""
    suspects = [name for name in names if not name.endswith(_COUNTER) and _is_foreign(network, name)]
    if not suspects:
        return []
    with torch.device("meta"):
        whole = timm.create_model(model).state_dict()  # its classifier may reach into what the network keeps of it
    return [name for name in suspects if name not in whole]


def _is_foreign(module: torch.nn.Module, name: str) -> bool:
    """Whether a name is that of a block after a network's last, or of a tensor more beside those of one layer."""
    for part in name.split("."):
        if part not in module._modules:
            if isinstance(module, torch.nn.Sequential | torch.nn.ModuleList) and len(module):
                return part.isdigit()
            # A scale or an adapter changes what the layer's weight means. Buffers that are computed are saved by some.
            return not module._modules and part not in module._buffers and any(True for _ in module.parameters())
        inner = module._modules[part]
        if inner is None:
            return False
        module = inner
    return False


def _usual_place(saved: Mapping[str, Any]) -> tuple[str, ...]:
    keys: tuple[str, ...] = ()
    for key in _USUAL:
        if isinstance(saved.get(key), Mapping):
            saved, keys = saved[key], (*keys, key)
    return keys


def _sets(saved: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensors]]:
    """The mappings in one another with the keys that lead to them, and the tensors of each."""
    yield keys, {name: value for name, value in saved.items() if isinstance(value, torch.Tensor)}
    for key, value in saved.items():
        if isinstance(value, Mapping) and isinstance(key, str) and len(keys) < _DEPTH:
            yield from _sets(value, (*keys, key))


def _prefixes(tensors: Tensors, kinds: Kinds) -> list[str]:
    """What may stand before a network's names, none first, by where the first of them is found."""
    first = next(name for name in kinds if not name.endswith(_COUNTER))
    ends = (name.removesuffix(first) for name in tensors if isinstance(name, str) and name.endswith("." + first))
    return ["", *ends]


def _same(some: Tensors, others: Tensors) -> bool:
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items() if not name.endswith(_COUNTER))


def _resampled(found: Tensors, model: str, path: Path, img_size: int | None) -> torch.nn.Module:
    """The network that timm builds from weights made at the model's own size: its filter resamples what it must."""
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    # Without the name of a classifier timm looks for none, and takes no other names than the network's.
    source = {"state_dict": tensors, "classifier": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about timm's code
            network: torch.nn.Module = timm.create_model(
                model, pretrained=True, pretrained_cfg_overlay=source, num_classes=0, img_size=img_size
            ).eval()
        loaded = network.state_dict()
        lost = [name for name, tensor in tensors.items() if tensor.shape == loaded[name].shape]
        lost = [name for name in lost if not torch.equal(tensors[name], loaded[name])]
    except Exception as error:  # each model's filter raises its own
        text = str(error).strip() or type(error).__name__
        mismatch = re.search(r"size mismatch for (\S+?):", text)
        raise DynapropError(
            f"{path}: weights of timm's {model} at its own size, which timm cannot resample for {img_size} x "
            f"{img_size} pixels ({mismatch[1] if mismatch else text.splitlines()[-1]}); give the backbone its own size"
        ) from None
    if lost:
        raise DynapropError(f"{path}: timm lost {lost[0]} of its {model} at {img_size} x {img_size} pixels")
    network.pretrained_cfg.pop("state_dict")  # type: ignore[operator,union-attr]  # they would be kept twice
    return network
