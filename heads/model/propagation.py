"""Dynamic knowledge propagation (sections 3.1 and 3.2): cross-attention from student frames to teacher frames.

eq. (1)   h_ts[i] = sum_u  softmax_u( q_s[i] . k_t[u] / tau )  v_t[u],     tau = sqrt(d_k)
eq. (2)   o_s[i]  = h_s[i] + h_ts[i]
"""

from dataclasses import dataclass

import torch
from torch import nn

from dynaprop.heads.model.attention import attend


@dataclass(frozen=True)
class Propagated:
    """What knowledge propagation gives for a batch of videos."""

    features: torch.Tensor
    """o_s of eq. (2), ``[b, n_s, d_s]``"""
    queries: torch.Tensor
    """q_s, projected from the student's frames, ``[b, n_s, d_k]``; eq. (8) compares them with the keys"""
    keys: torch.Tensor
    """k_t, projected from the teacher's frames, ``[b, n_t, d_k]``"""


class KnowledgePropagation(nn.Module):
    """Carry what the teacher saw in a few frames into every frame of the student.

    Args:
        student_dim: width d_s of the student's features
        teacher_dim: width d_t of the teacher's features
        key_dim: width d_k of queries and keys
    """

    def __init__(self, *, student_dim: int, teacher_dim: int, key_dim: int = 256) -> None:
        super().__init__()
        self.query = nn.Linear(student_dim, key_dim)
        self.key = nn.Linear(teacher_dim, key_dim)
        self.value = nn.Linear(teacher_dim, student_dim)

    def forward(self, h_s: torch.Tensor, h_t: torch.Tensor, mask_t: torch.Tensor) -> Propagated:
        """Enrich the student's features with the teacher's.

        Args:
            h_s: the student's fused features ``[b, n_s, d_s]``; they need no mask, as each is enriched by itself
            h_t: the teacher's fused features ``[b, n_t, d_t]``
            mask_t: bool ``[b, n_t]``, False at padding
        """
        q_s = self.query(h_s)  # [b, n_s, d_k]
        k_t = self.key(h_t)  # [b, n_t, d_k]
        v_t = self.value(h_t)  # [b, n_t, d_s]
        h_ts = attend(q_s, k_t, v_t, mask_t)  # [b, n_s, d_s], eq. (1)
        o_s = h_s + h_ts  # [b, n_s, d_s], eq. (2)
        return Propagated(features=o_s, queries=q_s, keys=k_t)
