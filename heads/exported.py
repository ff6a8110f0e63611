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
from typing import Annotated, Final, Literal

import safetensors.torch
import torch
from pydantic import Field, PositiveInt, ValidationError

from heads.checkpoint import ModelArguments, Record, arguments_of, heads_bytes, load_heads
from heads.evaluate import Model, branch_widths, check_counts
from pipeline.errors import DynapropError, UsageError
from pipeline.feature_key import FEATURE_VERSION, RESIZE_RULE, FeatureKey
from pipeline.files import writing
from pipeline.fit import width
from pipeline.weights import Weights

RECORD, HEADS, CARD = "model.json", "heads.safetensors", "README.md"
FORMAT: Final = "dynaprop exported model"
_AGAIN = "export the model again"

Branch = Literal["student", "teacher"]
OnnxName = Literal["student.onnx", "teacher.onnx", "heads.onnx"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BackboneRecord(Record):
    """One branch's backbone: what shapes its features, and what they cost."""

    model: str = Field(pattern=r"^\w+(\.\w+)?$", max_length=100)
    """timm's name"""
    size: int = Field(ge=1, le=4096)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: Literal["fp32", "fp16", "bf16"]
    channels: PositiveInt
    feature_key: str
    """of the features that the heads were trained on"""
    gmacs: float = Field(ge=0)
    """multiply-adds of a frame, in units of 1e9"""
    sha256: Sha256
    """of the branch's .safetensors file"""


class ClipRule(Record):
    """The clip grid of the training, see `pipeline.clips.clip_grid`."""

    clip_seconds: float = Field(gt=0)
    min_clips: PositiveInt
    max_clips: PositiveInt
    min_share: float = Field(ge=0, le=1)
    """of a damaged video, what must be there"""


class ModelRecord(Record):
    """The content of ``model.json``."""

    format: Literal["dynaprop exported model"]
    schema_version: Literal[1]
    feature_version: int
    """of the code from file to feature; another one gives other features"""
    resize: str
    """the rule from frame to square"""
    name: str
    """of the setting, such as ``dynamic-20+5``"""
    run: str
    seed: int
    model: ModelArguments
    class_names: tuple[str, ...]
    n_s: int = Field(ge=0)
    n_t: int = Field(ge=0)
    grid: ClipRule
    backbones: dict[Branch, BackboneRecord]
    gmacs: float = Field(ge=0)
    """multiply-adds of a video with all its frames, heads included, in units of 1e9"""
    gflops_paper: float | None
    """by the published figures a frame; null where there are none"""
    heads_sha256: Sha256
    onnx_sha256: dict[OnnxName, Sha256]
    """of the .onnx files, by name"""
    record_sha256: str
    """of all the above, so that an edit of this file is noticed"""

    def digest(self) -> str:
        """What ``record_sha256`` has to be."""
        return hashlib.sha256(self.model_dump_json(exclude={"record_sha256"}).encode()).hexdigest()


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
    """
    records = {}
    with writing(folder):
        for branch, backbone in backbones.items():
            file, key = folder / f"{branch}.safetensors", backbone.key
            state = {name: tensor.contiguous() for name, tensor in backbone.network.state_dict().items()}
            file.write_bytes(safetensors.torch.save(state))  # save_file's are for their owner alone
            records[branch] = BackboneRecord(
                model=key.model,
                size=key.size,
                mean=_three(key.mean),
                std=_three(key.std),
                precision=key.precision,  # type: ignore[arg-type]
                channels=width(backbone.network),
                feature_key=key.name,
                gmacs=backbone.gmacs,
                sha256=_sha256(file),
            )
        weights = heads_bytes(model)
        (folder / HEADS).write_bytes(weights)
        record = ModelRecord(
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
            record_sha256="",
        )
        record = record.model_copy(update={"record_sha256": record.digest()})
        (folder / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card(record), encoding="utf-8")
    return record


def is_export(folder: Path) -> bool:
    """Whether a folder claims to be an exported model, a whole one or not."""
    return any((folder / name).is_file() for name in (RECORD, HEADS))


def read_export(folder: Path) -> Exported:
    """Check every file of an exported model and read its heads.

    Raises:
        UsageError: there is no exported model.
        DynapropError: a file is missing, damaged or another model's, or the export is of another version.
    """
    if not is_export(folder):
        raise UsageError(f"{folder}: no exported model here, which would have a {RECORD}; `dynaprop export` makes one")
    if not (folder / RECORD).is_file():
        raise DynapropError(f"{folder}: {RECORD} is missing; copy the whole folder again, or {_AGAIN}")
    record = _read_record(folder / RECORD)
    files: dict[str, str] = {HEADS: record.heads_sha256}
    files |= {str(name): digest for name, digest in record.onnx_sha256.items()}
    files |= {f"{branch}.safetensors": backbone.sha256 for branch, backbone in record.backbones.items()}
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise DynapropError(f"{folder}: {name} is missing; copy the whole folder again, or {_AGAIN}")
        if _sha256(folder / name) != digest:
            raise DynapropError(
                f"{folder / name} is not the file that {RECORD} describes: it is damaged or of another export; "
                f"copy the whole folder again, or {_AGAIN}"
            )
    file = folder / HEADS
    model = load_heads(file.read_bytes(), record.model, file=file, described_by=folder / RECORD, remedy=_AGAIN)
    _check_parts(folder / RECORD, record, model)
    backbones = {}
    for branch, backbone in record.backbones.items():
        path = folder / f"{branch}.safetensors"
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


def _read_record(path: Path) -> ModelRecord:
    try:
        record = ModelRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DynapropError(
            f"{path}: {where}: {first['msg']}; it is damaged or of another version of dynaprop: {_AGAIN}"
        ) from None
    if record.record_sha256 != record.digest():
        raise DynapropError(f"{path} was changed after the export; restore it, or {_AGAIN}")
    if (record.feature_version, record.resize) != (FEATURE_VERSION, RESIZE_RULE):
        raise DynapropError(
            f"{path}: this version of dynaprop makes other features from a frame (version {FEATURE_VERSION}, not "
            f"{record.feature_version}): extract and train again, then {_AGAIN}"
        )
    return record


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
        raise DynapropError(f"{path}: {problem}; {_AGAIN}")


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
