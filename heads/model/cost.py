"""What a prediction costs, in two columns: the published per-frame figures, and multiply-adds that are counted.

The paper's "GFLOPs" are multiply-adds, and its 1.8 for EfficientNet-B3 is the figure at 300 px rather than at the
224 px that are used; the measured column counts the model at the resolution it really sees, heads included.
"""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE


def gflops_paper(*, n_s: int, n_t: int, b_s: float | None, b_t: float | None) -> float | None:
    """Nominal cost ``n_s * b_s + n_t * b_t`` of section 4.1.

    Args:
        n_s, n_t: frames of student and teacher.
        b_s, b_t: published cost of a frame; None where nothing is published.

    Returns:
        GFLOPs a video; None when a branch that is used has no published figure.
    """
    used = [(n, b) for n, b in ((n_s, b_s), (n_t, b_t)) if n > 0]
    if any(b is None for _, b in used):
        return None
    return float(sum(n * b for n, b in used if b is not None))


def gmacs_backbones(*, n_s: np.ndarray, n_t: np.ndarray, b_s: float, b_t: float) -> float:
    """Mean multiply-adds (1e9) of the backbones over videos with ``n_s``, ``n_t`` ``[videos]`` frames really used."""
    return float(np.mean(n_s * b_s + n_t * b_t))


def gmacs_of(model: torch.nn.Module, *inputs: object) -> float:
    """Multiply-adds (1e9) of one forward pass of the heads."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*inputs)
    return counter.get_total_flops() / 2 / 1e9


def gmacs_heads(model: FrameClassifier | DynamicSTE | StaticSTE, *, n_s: int, n_t: int) -> float:
    """Multiply-adds (1e9) of the heads for one video of ``n_s`` and ``n_t`` frames."""
    return gmacs_of(model, *_one_video(model, n_s, n_t))


def _one_video(model: FrameClassifier | DynamicSTE | StaticSTE, n_s: int, n_t: int) -> list[torch.Tensor]:
    """Features and masks of one video, ``[1, n, d]`` and ``[1, n]`` a branch."""
    if isinstance(model, FrameClassifier):
        sizes = [(n_s or n_t, model.branch.dim)]
    elif isinstance(model, StaticSTE):
        sizes = [(n_s, model.student.branch.dim), (n_t, model.teacher.branch.dim)]
    else:
        sizes = [(n_s, model.student.dim), (n_t, model.teacher.branch.dim)]
    device = next(model.parameters()).device
    return [
        tensor
        for n, d in sizes
        for tensor in (torch.zeros(1, n, d, device=device), torch.ones(1, n, dtype=torch.bool, device=device))
    ]
