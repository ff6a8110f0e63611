"""Trained heads on disk: ``<name>.safetensors`` (weights) beside ``<name>.json`` (all else it takes to use them)."""

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from dynaprop.heads.evaluation.predict import Model
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.atomic import published
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.sealed import publish_record, read_record

_TRIES = 3

Scalar = bool | int | float | str | None


class Record(BaseModel):
    """Strict: a key too many, a key too few, a wrong type or a number that is none is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


# Bounds of what a file may ask for: shapes are only then compared with the weights.
Width = Annotated[int, Field(ge=1, le=1_000_000)]
Frames = Annotated[int, Field(ge=0, le=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Gamma = Annotated[float, Field(ge=1, le=1e9)]


class FrameClassifierArguments(Record):
    """What `FrameClassifier` was constructed with (``feature_std`` lies with the weights)."""

    kind: Literal["FrameClassifier"]
    dim: Width
    n_classes: Width
    key_dim: Width
    gamma: Gamma
    fusion: bool


class DynamicSTEArguments(Record):
    """What `DynamicSTE` was constructed with."""

    kind: Literal["DynamicSTE"]
    student_dim: Width
    teacher: FrameClassifierArguments
    key_dim: Width
    gamma: Gamma
    fusion: bool


class StaticSTEArguments(Record):
    """What `StaticSTE` was constructed with."""

    kind: Literal["StaticSTE"]
    student: FrameClassifierArguments
    teacher: FrameClassifierArguments
    weights: tuple[float, float] | None


ModelArguments = Annotated[
    FrameClassifierArguments | DynamicSTEArguments | StaticSTEArguments, Field(discriminator="kind")
]


class CheckpointInfo(Record):
    """The json beside the weights."""

    schema_version: Literal[1]
    model: ModelArguments
    class_names: tuple[str, ...]
    feature_keys: dict[Literal["student", "teacher"], str]
    """key of the features that each branch was trained on"""
    n_s: Frames
    """student frames a video at inference; 0 for a model of the teacher's branch"""
    n_t: Frames
    seed: Seed
    hyper_parameters: dict[str, Scalar | tuple[int, ...]]
    metrics: dict[str, float | None]
    weights_sha256: str
    """of the .safetensors file: neither file is used with another's partner"""


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to predict, and what is known about it."""

    model: Model
    info: CheckpointInfo


def save_checkpoint(
    path: StoragePath,
    model: Model,
    *,
    class_names: tuple[str, ...],
    feature_keys: dict[Literal["student", "teacher"], str],
    n_s: int,
    n_t: int,
    seed: int,
    hyper_parameters: dict[str, Scalar | tuple[int, ...]],
    metrics: dict[str, float | None],
) -> None:
    """Write ``<path>.safetensors`` and ``<path>.json``, each whole or not at all; metrics that are not finite are null.

    The json is written last, and until it is, an older json refuses the new weights by their hash.
    """
    weights = heads_bytes(model)
    info = CheckpointInfo(
        schema_version=1,
        model=arguments_of(model),
        class_names=class_names,
        feature_keys=feature_keys,
        n_s=n_s,
        n_t=n_t,
        seed=seed,
        hyper_parameters=hyper_parameters,
        metrics={
            name: value if value is not None and math.isfinite(value) else None for name, value in metrics.items()
        },
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    for _ in range(_TRIES):
        with published(_with(path, ".safetensors")) as temporary:
            temporary.write_bytes(weights)
        publish_record(_with(path, ".json"), json.loads(info.model_dump_json()))
        with suppress(DynapropError):  # else another process has put its own model's file between these two
            _read(path)
            return


def heads_bytes(model: Model) -> bytes:
    """The weights as a safetensors file."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(state)


def load_checkpoint(path: StoragePath, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint, by the name it was saved under or by the name of either of its files.

    Raises:
        UsageError: there is no such checkpoint
        DynapropError: its files are damaged, do not belong together, or come from another version
    """
    stem = path.with_suffix("") if path.suffix in (".json", ".safetensors") else path
    info, weights = _read(stem)
    model = load_heads(weights, info.model, file=_with(stem, ".safetensors"), described_by=_with(stem, ".json"))
    return Checkpoint(model=model.to(device).eval(), info=info)


def check_checkpoint(path: StoragePath) -> None:
    """Make sure that a checkpoint's files are there, whole and each other's.

    Args:
        path: the name that it was saved under.

    Raises:
        DynapropError: they are not; of ``load_checkpoint``.
    """
    _read(path)


def _read(stem: StoragePath) -> tuple[CheckpointInfo, bytes]:
    """What is known about a model, and its weights' file."""
    json_path, weights_path = _with(stem, ".json"), _with(stem, ".safetensors")
    for file in (json_path, weights_path):
        if not file.is_file():
            raise UsageError(f"no checkpoint at {stem}: {file.name} is missing; train the model first")
    info = read_info(json_path)
    weights = weights_path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != info.weights_sha256:
        raise DynapropError(f"{weights_path} is not the file that {json_path.name} describes: train the model again")
    return info, weights


def load_heads(
    weights: bytes,
    arguments: ModelArguments,
    *,
    file: StoragePath,
    described_by: StoragePath,
    remedy: str = "train the model again",
) -> Model:
    """The model that was constructed with these arguments, with the weights of a safetensors file, on the CPU.

    Args:
        weights: the file's bytes.
        arguments: the model's.
        file, described_by, remedy: where the two come from and what to do, for messages.

    Raises:
        DynapropError: the weights are damaged or another model's.
    """
    try:
        state = safetensors.torch.load(weights)
    except SafetensorError as error:
        raise DynapropError(f"{file} is damaged ({error}): {remedy}") from error
    with torch.device("meta"):  # shapes only: a wrong size in the json must not allocate memory
        model = _build(arguments)
    _check_shapes(model, state, described_by, remedy)
    model.load_state_dict(state, assign=True)
    return model


def read_info(path: StoragePath) -> CheckpointInfo:
    """Read the json of a checkpoint; its weights may be anything yet."""
    try:
        info = CheckpointInfo.model_validate_json(json.dumps(read_record(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DynapropError(f"{path}: {where}: {first['msg']}; restore the file or train the model again") from error
    except ValueError as error:
        raise DynapropError(f"{error}; restore the file or train the model again") from None
    teacher_or_model = info.model if isinstance(info.model, FrameClassifierArguments) else info.model.teacher
    if teacher_or_model.n_classes != len(info.class_names):
        raise DynapropError(
            f"{path}: class_names has {len(info.class_names)} entries for a model of {teacher_or_model.n_classes} "
            "classes; restore the file or train the model again"
        )
    return info


def _check_shapes(model: Model, state: dict[str, torch.Tensor], json_path: StoragePath, remedy: str) -> None:
    expected = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            described, stored = (_describe(tensors.get(name)) for tensors in (expected, found))
            raise DynapropError(
                f"{json_path} describes another model than its weights: {name} should be {described}, is {stored}; "
                f"restore the file or {remedy}"
            )


def _describe(tensor: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "absent" if tensor is None else f"{tensor[1]} {list(tensor[0])}"


def arguments_of(model: Model) -> ModelArguments:
    """What a model was constructed with."""
    if isinstance(model, FrameClassifier):
        return _classifier_arguments(model)
    if isinstance(model, DynamicSTE):
        return DynamicSTEArguments(
            kind="DynamicSTE",
            student_dim=model.student.dim,
            teacher=_classifier_arguments(model.teacher),
            key_dim=model.student.key_dim,
            gamma=model.gamma,
            fusion=model.student.fusion is not None,
        )
    return StaticSTEArguments(
        kind="StaticSTE",
        student=_classifier_arguments(model.student),
        teacher=_classifier_arguments(model.teacher),
        weights=model.weights,
    )


def _classifier_arguments(model: FrameClassifier) -> FrameClassifierArguments:
    return FrameClassifierArguments(
        kind="FrameClassifier",
        dim=model.branch.dim,
        n_classes=model.n_classes,
        key_dim=model.branch.key_dim,
        gamma=model.gamma,
        fusion=model.branch.fusion is not None,
    )


def _build(arguments: ModelArguments) -> Model:
    if isinstance(arguments, FrameClassifierArguments):
        return _build_classifier(arguments)
    if isinstance(arguments, DynamicSTEArguments):
        return DynamicSTE(
            student_dim=arguments.student_dim,
            teacher=_build_classifier(arguments.teacher),
            key_dim=arguments.key_dim,
            gamma=arguments.gamma,
            fusion=arguments.fusion,
        )
    return StaticSTE(
        student=_build_classifier(arguments.student),
        teacher=_build_classifier(arguments.teacher),
        weights=arguments.weights,
    )


def _build_classifier(arguments: FrameClassifierArguments) -> FrameClassifier:
    return FrameClassifier(**arguments.model_dump(exclude={"kind"}))


def _with(path: StoragePath, suffix: str) -> StoragePath:
    """``path`` with ``suffix`` put behind it, also where the name itself has dots."""
    return path.with_name(path.name + suffix)
