"""An exported model's networks as ONNX, for runtimes without torch; each is compared with torch before it counts.

    student.onnx, teacher.onnx    frames uint8 [n, size, size, 3] RGB -> features float32 [n, d]; normalisation included
    heads.onnx                    features float32 [1, n, d] and mask bool [1, n] of each branch -> probabilities [1, c]

The heads take the model's full numbers of frames; a shorter video is padded, its padding False in the mask.
"""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dynaprop.heads.evaluation.predict import Model, branch_widths
from dynaprop.heads.export.model_folder import BackboneToExport
from dynaprop.heads.export.record import Branch, OnnxName
from dynaprop.heads.model.ensembles import FrameClassifier, StaticSTE
from dynaprop.heads.model.prediction import video_probabilities
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.atomic import writing

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_DIFFERENCE = 1e-4  # from torch, at most, as a share of the largest value, or of 1 where that is smaller
_OPSET = 20


def require_onnx() -> None:
    """Raises UsageError where a package is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"{', '.join(missing)}, not installed here; run: pip install 'dynaprop[onnx]'"
        raise UsageError(problem, remedy="install onnx")


class PixelNetwork(nn.Module):
    """A backbone with its normalisation.

    Args:
        network: pixels normalised ``[n, 3, size, size]`` to features ``[n, d]``.
        mean, std: normalisation of pixels in [0, 1].
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """``frames`` uint8 ``[n, size, size, 3]`` to features ``[n, d]``."""
        return self.network((frames.permute(0, 3, 1, 2).float() - self.mean) / self.std)


class ProbabilityHeads(nn.Module):
    """Heads whose output is the class probabilities, whatever their kind.

    Args:
        model: the heads.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Features and mask of each branch to ``[b, c]`` float32."""
        scores = self.model(*inputs)
        if not isinstance(self.model, StaticSTE):
            scores = video_probabilities(scores.video_logits)
        return scores.float()


def export_onnx(
    folder: Path, model: Model, backbones: Mapping[Branch, BackboneToExport], *, n_s: int, n_t: int
) -> tuple[OnnxName, ...]:
    """Write and check the ONNX files of a model.

    Args:
        folder: where to.
        model: the heads, on the CPU.
        backbones: of the branches that the model has.
        n_s, n_t: frames of student and teacher.

    Returns:
        The names of the files.

    Raises:
        UsageError: a package is missing.
        DynapropError: a network cannot be exported, or computes something else than torch.
    """
    require_onnx()
    rng = np.random.default_rng(0)
    names: list[OnnxName] = []
    onnx_name: dict[Branch, OnnxName] = {"student": "student.onnx", "teacher": "teacher.onnx"}
    for branch, backbone in backbones.items():
        key = backbone.key
        frames = torch.from_numpy(rng.integers(0, 256, (2, key.size, key.size, 3), np.uint8))
        network = PixelNetwork(backbone.network, mean=key.mean, std=key.std).eval()
        names.append(onnx_name[branch])
        _export(network, {"frames": frames}, "features", folder / names[-1], n_frames="n")
        more = torch.from_numpy(rng.integers(0, 256, (3, key.size, key.size, 3), np.uint8))
        _check(network, {"frames": more}, folder / names[-1])
    names.append("heads.onnx")
    heads = ProbabilityHeads(model).eval()
    examples = [_example(model, n_s, n_t, rng, padded=padded) for padded in (False, True)]
    _export(heads, examples[0], "probabilities", folder / names[-1])
    for example in examples:
        _check(heads, example, folder / names[-1])
    return tuple(names)


def _example(model: Model, n_s: int, n_t: int, rng: np.random.Generator, *, padded: bool) -> dict[str, torch.Tensor]:
    """Features of a video, scaled as those of the training, and masks; without the last frames where ``padded``."""
    counts, inputs = {"student": n_s, "teacher": n_t}, {}
    for branch, width in branch_widths(model, n_s=n_s).items():
        n = counts[branch]
        std = _branch_std(model, branch)
        mask = np.arange(n) < (max(1, n - 2) if padded else n)
        features = std * np.abs(rng.normal(size=(1, n, width))).astype(np.float32) * mask[None, :, None]
        inputs[f"{branch}_features"] = torch.from_numpy(features.astype(np.float32))
        inputs[f"{branch}_mask"] = torch.from_numpy(mask[None])
    return inputs


def _branch_std(model: Model, branch: str) -> float:
    part = model if isinstance(model, FrameClassifier) else getattr(model, branch)
    return float((part.branch if isinstance(part, FrameClassifier) else part).feature_std)


def _export(
    network: nn.Module, inputs: Mapping[str, torch.Tensor], output: str, path: Path, *, n_frames: str | None = None
) -> None:
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    dynamic = ({0: torch.export.Dim(n_frames, min=1)},) if n_frames else None
    try:
        with writing(path), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                tuple(inputs.values()),
                path,
                dynamo=True,
                external_data=False,  # one file
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=dynamic,
                opset_version=_OPSET,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
                verbose=False,
            )
    except DynapropError:  # of the disk, not of the network
        raise
    except Exception as error:  # the exporter's have no common class
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DynapropError(f"{path.name} cannot be exported: {reason[0]}", remedy="leave out onnx") from error
    finally:
        quiet.setLevel(level)


def _stable_sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``aten.sort.stable``, which the exporter lacks; of equal values TopK takes the one with the lower index first."""
    from onnxscript import opset20

    op: Any = opset20
    count = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def _check(network: nn.Module, inputs: Mapping[str, torch.Tensor], path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.inference_mode():
        expected = network(*inputs.values()).numpy()
    difference = np.abs(found - expected).max() / max(1.0, np.abs(expected).max())
    if found.shape != expected.shape or not difference <= _DIFFERENCE:
        raise DynapropError(
            f"{path.name} computes something else than torch (difference {difference:.1e})", remedy="leave out onnx"
        )
