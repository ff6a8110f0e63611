"""``model.json`` of an exported model: what it is, and how much it may ask of who loads it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from dynaprop.heads.runs.checkpoint import Frames, ModelArguments, Record, Seed, Width
from dynaprop.pipeline.backbones.feature_key import FEATURE_VERSION, RESIZE_RULE
from dynaprop.pipeline.errors import DynapropError

FORMAT: Final = "dynaprop exported model"
AGAIN = "export the model again"

MOST_PIXELS = 1024  # a side; none of timm's models is made for more
MOST_GMACS = 2_000.0  # a frame
MOST_CLASSES = 100_000
MOST_FRAMES = 16_384  # that a branch sees of a video, which fusion compares with one another
MOST_FRAME_BYTES = 2**30  # of these frames in memory
_MOST_BYTES = 64 * 2**20  # of the file

Branch = Literal["student", "teacher"]
OnnxName = Literal["student.onnx", "teacher.onnx", "heads.onnx"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=10_000)]
Clips = Annotated[int, Field(ge=1, le=10_000_000)]
Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]


class BackboneRecord(Record):
    """One branch's backbone: what shapes its features, and what they cost."""

    model: str = Field(pattern=r"^\w+(\.\w+)?$", max_length=100)
    """timm's name"""
    size: int = Field(ge=1, le=MOST_PIXELS)
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    precision: Literal["fp32", "fp16", "bf16"]
    channels: Width
    feature_key: Text
    """of the features that the heads were trained on"""
    gmacs: float = Field(ge=0, le=MOST_GMACS)
    """multiply-adds of a frame, in units of 1e9"""
    sha256: Sha256
    """of the branch's .safetensors file"""


class ClipRule(Record):
    """The clip grid of the training, see `dynaprop.pipeline.clips.clip_grid`."""

    clip_seconds: float = Field(ge=1e-6, le=1e6)
    min_clips: Clips
    max_clips: Clips
    min_share: float = Field(ge=0, le=1)
    """of a damaged video, what must be there"""


class ModelRecord(Record):
    """The content of ``model.json``."""

    format: Literal["dynaprop exported model"]
    schema_version: Literal[1]
    feature_version: int
    """of the code from file to feature; another one gives other features"""
    resize: Text
    """the rule from frame to square"""
    name: Text
    """of the setting, such as ``dynamic-20+5``"""
    run: Text
    seed: Seed
    model: ModelArguments
    class_names: Annotated[tuple[Text, ...], Field(max_length=MOST_CLASSES)]
    n_s: Frames
    n_t: Frames
    grid: ClipRule
    backbones: dict[Branch, BackboneRecord]
    gmacs: float = Field(ge=0, le=1e12)
    """multiply-adds of a video with all its frames, heads included, in units of 1e9"""
    gflops_paper: Annotated[float, Field(ge=0, le=1e12)] | None
    """by the published figures a frame; null where there are none"""
    heads_sha256: Sha256
    onnx_sha256: dict[OnnxName, Sha256]
    """of the .onnx files, by name"""
    record_sha256: str
    """of all the above, so that an edit of this file is noticed"""

    def frames(self, branch: Branch) -> int:
        """Frames that a branch sees of a video at most."""
        return min(self.n_s if branch == "student" else self.n_t, self.grid.max_clips)

    @model_validator(mode="after")
    def _asks_little(self) -> "ModelRecord":
        for branch, backbone in self.backbones.items():
            frames = self.frames(branch)
            if frames > MOST_FRAMES:
                raise ValueError(f"{branch}: {frames:,} frames of a video, at most {MOST_FRAMES:,}")
            if (n_bytes := frames * backbone.size**2 * 3) > MOST_FRAME_BYTES:
                raise ValueError(
                    f"{branch}: {frames:,} frames of size {backbone.size} take {n_bytes:,} bytes a video, at most "
                    f"{MOST_FRAME_BYTES:,}"
                )
        return self

    def digest(self) -> str:
        """What ``record_sha256`` has to be."""
        return hashlib.sha256(self.model_dump_json(exclude={"record_sha256"}).encode()).hexdigest()


def read_record(path: Path) -> ModelRecord:
    """Read and check ``model.json``.

    Raises:
        DynapropError: it is damaged, was changed, is of another version, or asks for more than an export may.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise DynapropError(f"{path} is of {path.stat().st_size:,} bytes, at most {_MOST_BYTES:,}: {AGAIN}")
    try:
        record = ModelRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DynapropError(
            f"{path}: {_first(error)}; it is damaged or of another version of dynaprop: {AGAIN}"
        ) from None
    if record.record_sha256 != record.digest():
        raise DynapropError(f"{path} was changed after the export; restore it, or {AGAIN}")
    if (record.feature_version, record.resize) != (FEATURE_VERSION, RESIZE_RULE):
        raise DynapropError(
            f"{path}: this version of dynaprop makes other features from a frame (version {FEATURE_VERSION}, not "
            f"{record.feature_version}): extract and train again, then {AGAIN}"
        )
    return record


def make_record(values: Mapping[str, Any]) -> ModelRecord:
    """A signed record.

    Raises:
        DynapropError: it asks for more than an export may.
    """
    try:
        record = ModelRecord(**values, record_sha256="")
    except ValidationError as error:
        raise DynapropError(f"this model cannot be exported: {_first(error)}") from None
    return record.model_copy(update={"record_sha256": record.digest()})


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or 'the file'}: {first['msg'].removeprefix('Value error, ')}"
