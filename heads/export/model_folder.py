"""An exported model: one folder with all it takes to recognise videos, without dataset, catalog or run.

model.json              what the model is: classes, frames, clip grid, backbones, costs, and every file's SHA-256
heads.safetensors       fusion, propagation, classifier
student.safetensors     the branches' backbones under timm's names of their tensors; only those that the model has
teacher.safetensors
README.md               the model card
*.onnx                  the same networks for other runtimes, where they were asked for
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch

from dynaprop.heads.evaluation.predict import Model, branch_widths, check_counts
from dynaprop.heads.export.record import (
    AGAIN,
    FORMAT,
    MOST_GMACS,
    BackboneRecord,
    Branch,
    ClipRule,
    ModelRecord,
    OnnxName,
    make_record,
    read_record,
)
from dynaprop.heads.runs.checkpoint import arguments_of, heads_bytes, load_heads
from dynaprop.pipeline.backbones.feature_key import FEATURE_VERSION, RESIZE_RULE, FeatureKey
from dynaprop.pipeline.backbones.fit import fit_network, width
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.atomic import file_state, writing
from dynaprop.pipeline.io.folder_swap import bring_back

RECORD, HEADS, CARD = "model.json", "heads.safetensors", "README.md"
_READINGS = 20  # of an export that others replace at the same time
T = TypeVar("T")


@dataclass(frozen=True)
class BackboneToExport:
    """A branch's backbone, from wherever the run had it."""

    key: FeatureKey
    network: torch.nn.Module
    """timm's model with its weights, on the CPU."""
    gmacs: float


@dataclass(frozen=True)
class Exported:
    """An exported model, checked; backbones are not built yet."""

    record: ModelRecord
    model: Model
    backbones: dict[Branch, tuple[FeatureKey, Weights]]


def write_export(
    folder: Path,
    model: Model,
    *,
    name: str,
    run: str,
    seed: int,
    class_names: tuple[str, ...],
    n_s: int,
    n_t: int,
    grid: ClipRule,
    backbones: Mapping[Branch, BackboneToExport],
    gmacs: float,
    gflops_paper: float | None,
    card: Callable[[ModelRecord], str],
    onnx_files: Sequence[OnnxName] = (),
) -> ModelRecord:
    """Write a model's files into a folder of `new_export`.

    Args:
        folder: where to; the ``onnx_files`` lie there already.
        model: the heads.
        card: makes the model card from the record.
        name, run, seed, class_names, n_s, n_t, grid, gmacs, gflops_paper: see `ModelRecord`.
        backbones: of the branches that the model has.
        onnx_files: names.

    Raises:
        DynapropError: it cannot be written, or asks for more than an export may, see ``dynaprop.heads.export.record``.
    """
    records = {}
    with writing(folder):
        for branch, backbone in backbones.items():
            file, key = folder / f"{branch}.safetensors", backbone.key
            state = {name: tensor.contiguous() for name, tensor in backbone.network.state_dict().items()}
            file.write_bytes(safetensors.torch.save(state))  # save_file's are for their owner alone
            records[branch] = dict(
                model=key.model,
                size=key.size,
                mean=_three(key.mean),
                std=_three(key.std),
                precision=key.precision,
                channels=width(backbone.network),
                feature_key=key.name,
                gmacs=backbone.gmacs,
                sha256=_sha256(file),
            )
        weights = heads_bytes(model)
        (folder / HEADS).write_bytes(weights)
        values = dict(
            format=FORMAT,
            schema_version=1,
            feature_version=FEATURE_VERSION,
            resize=RESIZE_RULE,
            name=name,
            run=run,
            seed=seed,
            model=arguments_of(model),
            class_names=class_names,
            n_s=n_s,
            n_t=n_t,
            grid=grid,
            backbones=records,
            gmacs=gmacs,
            gflops_paper=gflops_paper,
            heads_sha256=hashlib.sha256(weights).hexdigest(),
            onnx_sha256={file: _sha256(folder / file) for file in onnx_files},
        )
        record = make_record(values)
        (folder / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card(record), encoding="utf-8")
    return record


def bring_back_export(folder: Path) -> None:
    """Put the export back under its name that a killed process was about to replace, where nothing is there now."""
    bring_back(folder, is_whole=lambda old: (old / RECORD).is_file() and (old / HEADS).is_file())


def while_unchanged(folder: Path, read: Callable[[], T]) -> T:
    """What a function reads of an export, which may be replaced meanwhile: all of it is the old one's or the new one's.

    Raises:
        DynapropError: the function's own, or the export is replaced again and again.
    """
    for _ in range(_READINGS):
        before = _state(folder)
        try:
            value = read()
        except (DynapropError, OSError):
            if _state(folder) == before:
                raise
        else:
            if _state(folder) == before:
                return value
    raise DynapropError(f"{folder} is being replaced over and over; try again when that has ended")


def _state(folder: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """Changes whenever the folder or a file in it is replaced."""
    for _ in range(_READINGS):
        try:
            return sorted((path.name, file_state(path)) for path in (folder, *folder.iterdir()))
        except OSError:  # replaced amid the listing
            bring_back_export(folder)
    return []


def is_export(folder: Path) -> bool:
    """Whether a folder claims to be an exported model, a whole one or not."""
    bring_back_export(folder)
    return any((folder / name).is_file() for name in (RECORD, HEADS))


def read_export(folder: Path) -> Exported:
    """Check every file of an exported model and read its heads.

    Raises:
        UsageError: there is no exported model.
        DynapropError: a file is missing, damaged or another model's, or the export is of another version.
    """
    return while_unchanged(folder, lambda: _read_export(folder))


def _read_export(folder: Path) -> Exported:
    if not is_export(folder):
        raise UsageError(f"{folder}: no exported model here, which would have a {RECORD}; `dynaprop export` makes one")
    if not (folder / RECORD).is_file():
        raise DynapropError(f"{folder}: {RECORD} is missing; copy the whole folder again, or {AGAIN}")
    record = read_record(folder / RECORD)
    files: dict[str, str] = {HEADS: record.heads_sha256}
    files |= {str(name): digest for name, digest in record.onnx_sha256.items()}
    files |= {f"{branch}.safetensors": backbone.sha256 for branch, backbone in record.backbones.items()}
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise DynapropError(f"{folder}: {name} is missing; copy the whole folder again, or {AGAIN}")
        if _sha256(folder / name) != digest:
            raise DynapropError(
                f"{folder / name} is not the file that {RECORD} describes: it is damaged or of another export; "
                f"copy the whole folder again, or {AGAIN}"
            )
    file = folder / HEADS
    model = load_heads(file.read_bytes(), record.model, file=file, described_by=folder / RECORD, remedy=AGAIN)
    _check_parts(folder / RECORD, record, model)
    backbones = {}
    for branch, backbone in record.backbones.items():
        path = folder / f"{branch}.safetensors"
        _check_backbone(folder / RECORD, branch, backbone, weights_bytes=path.stat().st_size)
        key = FeatureKey(
            backbone=branch,
            model=backbone.model,
            size=backbone.size,
            weights=backbone.sha256,
            mean=backbone.mean,
            std=backbone.std,
            precision=backbone.precision,
        )
        backbones[branch] = key, Weights(str(path), path, backbone.sha256)
    return Exported(record, model.eval(), backbones)


def _check_parts(path: Path, record: ModelRecord, model: Model) -> None:
    """Raise DynapropError unless classes, frames, heads and backbones belong together."""
    problem = None
    try:
        check_counts(model, record.n_s, record.n_t)
    except UsageError as error:
        problem = str(error)
    widths = branch_widths(model, n_s=record.n_s)
    found = {str(branch): backbone.channels for branch, backbone in record.backbones.items()}
    if model.n_classes != len(record.class_names):
        problem = f"{len(record.class_names)} class names for a model of {model.n_classes} classes"
    elif problem is None and widths != found:
        problem = f"the heads take features of {widths}, the backbones give {found}"
    if problem:
        raise DynapropError(f"{path}: {problem}; {AGAIN}")


def _check_backbone(path: Path, branch: Branch, backbone: BackboneRecord, *, weights_bytes: int) -> None:
    """Raise DynapropError unless a network is one that can be built from its weights and run in a moment.

    Nothing is built for it but shapes: one without its weights might take all memory.
    """
    try:
        fit = fit_network(backbone.model, backbone.size)
    except UsageError as error:
        raise DynapropError(f"{path}: backbones.{branch}: {error}; {AGAIN}") from None
    problem = None
    if fit.gmacs > MOST_GMACS:
        problem = f"{fit.gmacs:,.0f} GMACs a frame, at most {MOST_GMACS:,.0f}"
    elif fit.channels != backbone.channels:
        problem = f"timm's {backbone.model} gives {fit.channels} channels, not {backbone.channels}"
    elif 2 * weights_bytes < fit.n_bytes:  # half precision takes half
        problem = f"{weights_bytes:,} bytes are not weights of timm's {backbone.model}, which has {fit.n_bytes:,}"
    if problem:
        raise DynapropError(f"{path}: backbones.{branch}: {problem}; {AGAIN}")


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
