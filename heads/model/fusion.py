"""Temporal feature fusion (section 3.2): self-attention over the frames of one branch."""

import torch
from torch import nn
from torch.nn import functional

from dynaprop.heads.model.attention import attend


class TemporalFusion(nn.Module):
    """One head of self-attention over the frames of a video.

    As the paper describes it: three linear layers and the scaled dot product, so no residual connection, no
    normalisation and no output projection. Queries and keys have width ``key_dim``, values keep the feature's width.

    Args:
        dim: width d of the frame features
        key_dim: width d_k of queries and keys
    """

    def __init__(self, *, dim: int, key_dim: int = 256) -> None:
        super().__init__()
        self.query = nn.Linear(dim, key_dim)
        self.key = nn.Linear(dim, key_dim)
        self.value = nn.Linear(dim, dim)

    def forward(self, z: torch.Tensor, mask: torch.Tensor, *, head: nn.Linear | None = None) -> torch.Tensor:
        """Fuse features ``z`` ``[b, n, d]`` over the frames that ``mask`` (bool ``[b, n]``) says are there.

        Args:
            z: ``[b, n, d]``
            mask: bool ``[b, n]``, False at padding
            head: a linear layer behind the fusion, ``d`` to ``c``. Attention is linear in its values, so that the
                head's and the values' matrices may be multiplied first: the same ``head(h)``, for ``c * d * d``
                multiply-adds once instead of ``d * d`` a frame. That is done where ``c`` is less than the frames.

        Returns:
            ``h`` ``[b, n, d]``, or ``head(h)`` ``[b, n, c]``; what stands at padding is finite and must not be used.
        """
        q = self.query(z)  # [b, n, d_k]
        k = self.key(z)  # [b, n, d_k]
        if head is not None and head.out_features < mask.numel():
            return attend(q, k, _both(z, self.value, head), mask)  # [b, n, c]
        h = attend(q, k, self.value(z), mask)  # [b, n, d]
        return h if head is None else head(h)  # [b, n, d] or [b, n, c]


def _both(z: torch.Tensor, first: nn.Linear, second: nn.Linear) -> torch.Tensor:
    """``second(first(z))`` by one matrix."""
    weight = second.weight @ first.weight  # [c, d]
    bias = functional.linear(first.bias, second.weight, second.bias)  # [c]
    return functional.linear(z, weight, bias)  # [b, n, c]
