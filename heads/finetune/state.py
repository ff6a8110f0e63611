"""A training that was interrupted: its last finished epoch on disk, as safetensors and json."""

import hashlib
import json
from collections.abc import Callable
from typing import Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.atomic import published, remove_folder, writing
from dynaprop.pipeline.io.paths import StoragePath, matching
from dynaprop.pipeline.io.sealed import publish_record, read_record

MOMENTS = ("exp_avg", "exp_avg_sq")


class EpochLog(BaseModel):
    """One epoch: means over the videos that were trained on."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    epoch: int = Field(ge=1)
    loss: float
    video_loss: float
    frame_loss: float | None
    cosine_loss: float | None
    top1: float
    """Share of the videos whose augmented frames got the right class while it was trained on."""
    lr: float
    """Of the heads, in the last step."""
    videos: int
    failed: int
    """Videos that could not be decoded so far."""
    seconds: float


class Progress(BaseModel):
    """All of a training's state that is no tensor."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: Literal[1] = 1
    epochs_done: int = Field(ge=1)
    log: tuple[EpochLog, ...]
    failed: tuple[str, ...]
    """Ids of the videos that are left out."""
    videos: str
    """Digest of the training videos, see `TrainingFrames`."""
    scaler: dict[str, float | int]
    """Of the gradient scaler; empty where there is none."""
    weights: str
    """Name of the file with the tensors."""
    weights_sha256: str

    @model_validator(mode="after")
    def _log_is_whole(self) -> "Progress":
        if [one.epoch for one in self.log] != list(range(1, self.epochs_done + 1)):
            raise ValueError("epochs_done and log do not agree")
        return self


class TrainingState:
    """Where one stage of a training is kept: ``<stage>.json`` names the tensors' file and its hash.

    A new epoch's tensors get a file of their own, and only then the json is replaced: whenever a training is killed,
    what the json speaks of is whole.

    Args:
        folder: of all stages.
        stage: a name.
        check: called before anything is written; it raises when that is no longer this process's right.
    """

    def __init__(self, folder: StoragePath, stage: str, *, check: Callable[[], None] | None = None) -> None:
        self.folder = folder
        self.stage = stage
        self._check = check or (lambda: None)
        self._path = folder / f"{stage}.json"

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        log: tuple[EpochLog, ...],
        failed: tuple[str, ...],
        videos: str,
        scaler: dict[str, float | int],
    ) -> None:
        """Keep a finished epoch instead of the one before."""
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            for kind, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{kind}.{name}"] = torch.as_tensor(value)
        data = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        progress = Progress(
            epochs_done=log[-1].epoch,
            log=log,
            failed=failed,
            videos=videos,
            scaler=scaler,
            weights=f"{self.stage}-{log[-1].epoch:04d}.safetensors",
            weights_sha256=hashlib.sha256(data).hexdigest(),
        )
        self._check()
        with writing(self.folder):
            with published(self.folder / progress.weights) as temporary:
                temporary.write_bytes(data)
            publish_record(self._path, json.loads(progress.model_dump_json()))
            for old in matching(self.folder, f"{self.stage}-*.safetensors"):
                if old.name != progress.weights:
                    old.unlink()

    def progress(self) -> Progress | None:
        """What is kept; None before the first epoch's end.

        Raises:
            DynapropError: it is damaged.
        """
        if not self._path.exists():
            return None
        try:
            return Progress.model_validate_json(json.dumps(read_record(self._path)))
        except ValidationError as error:
            raise self._damage(f"{self._path.name}: {error.errors()[0]['msg']}") from None
        except ValueError as error:
            raise self._damage(f"{self._path.name} cannot be read ({error})") from None

    def restore(self, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer, *, videos: str) -> None:
        """Put a kept epoch into a model and its optimizer.

        Raises:
            DynapropError: the tensors are gone, damaged or not this model's, or the videos have changed.
        """
        if videos != progress.videos:
            raise DynapropError(
                f"{self.folder}: its epochs saw other training videos, or other frames of them; bring those back, or "
                "delete this folder, and the same command trains anew"
            )
        try:
            data = (self.folder / progress.weights).read_bytes()
        except OSError as error:
            raise self._damage(f"{progress.weights}: {error.strerror or error}") from None
        if hashlib.sha256(data).hexdigest() != progress.weights_sha256:
            raise self._damage(f"{progress.weights} is not the file that {self._path.name} describes")
        try:
            tensors = safetensors.torch.load(data)
            model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
            for name, parameter in model.named_parameters():
                if f"step.{name}" in tensors:  # it is not where every step of half precision was skipped so far
                    state = {"step": tensors[f"step.{name}"]}
                    for kind in MOMENTS:  # laid out in memory as they were, which their last bits depend on
                        state[kind] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                        state[kind].copy_(tensors[f"{kind}.{name}"])
                    optimizer.state[parameter] = state
        except (KeyError, RuntimeError, safetensors.SafetensorError) as error:
            raise self._damage(f"{progress.weights} is of another model ({str(error).splitlines()[0]})") from None

    def _damage(self, what: str) -> DynapropError:
        return DynapropError(f"{self.folder}: {what}; delete this folder, and the same command trains anew")


def remove_states(folder: StoragePath) -> None:
    """Delete the states of all stages, once their training is over."""
    remove_folder(folder)
