"""One branch of the framework: cached frame features in, scaled and temporally fused features out."""

import numpy as np
import torch
from torch import nn

from dynaprop.heads.model.fusion import TemporalFusion
from dynaprop.pipeline.errors import DynapropError


class Branch(nn.Module):
    """Scale the frame features of one backbone, then fuse them over time (or not: Table 4).

    Args:
        dim: width d of the frame features
        key_dim: width d_k of the fusion's queries and keys
        fusion: whether there is temporal fusion at all
        feature_std: scalar that the features are divided by; saved with the weights
    """

    feature_std: torch.Tensor

    def __init__(self, *, dim: int, key_dim: int = 256, fusion: bool = True, feature_std: float = 1.0) -> None:
        super().__init__()
        self.dim = dim
        self.key_dim = key_dim
        self.fusion = TemporalFusion(dim=dim, key_dim=key_dim) if fusion else None
        self.register_buffer("feature_std", torch.tensor(feature_std))

    def forward(self, z: torch.Tensor, mask: torch.Tensor, *, head: nn.Linear | None = None) -> torch.Tensor:
        """``z`` ``[b, n, d]`` and ``mask`` (bool ``[b, n]``, False at padding) to ``h`` ``[b, n, d]``.

        With a ``head`` to ``head(h)`` ``[b, n, c]``, cheaper than one after the other: see `TemporalFusion.forward`.
        """
        z = z / self.feature_std  # [b, n, d]
        if self.fusion is not None:
            return self.fusion(z, mask, head=head)
        return z if head is None else head(z)


def measure_std(features: torch.Tensor, rows: np.ndarray, *, rows_at_once: int = 16384) -> float:
    """Standard deviation of all values of some ``rows`` of ``features`` ``[:, d]``, for `Branch`'s ``feature_std``.

    Summed in float64 over slices, so that large fp16 features are never copied whole.

    Raises:
        DynapropError: the features are constant or not finite
    """
    total = square = 0.0
    for index in torch.from_numpy(rows).split(rows_at_once):
        values = features[index].double()
        total += values.sum().item()
        square += values.square().sum().item()
    count = max(len(rows) * features.shape[1], 1)
    mean = total / count
    variance = square / count - mean**2
    if not 0 < variance < float("inf"):
        raise DynapropError(
            f"training features of {len(rows)} frames have variance {variance:g}; "
            "they must be finite and not all equal: extract them again"
        )
    return variance**0.5
