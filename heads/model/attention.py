"""Scaled dot-product attention with a key mask: the one operation under temporal fusion and eq. (1)."""

import math

import torch


def attention_weights(queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
    """How much each query attends to each key: the softmax over keys of the scaled dot products.

    Args:
        queries: ``[b, n_q, d_k]``
        keys: ``[b, n_k, d_k]``
        key_mask: bool ``[b, n_k]``, False at padding; every item of the batch has at least one True

    Returns:
        ``[b, n_q, n_k]``; each row sums to 1 and is exactly 0 at masked keys.
    """
    tau = math.sqrt(keys.shape[-1])  # the temperature below eq. (1)
    scores = queries @ keys.transpose(1, 2) / tau  # [b, n_q, n_k]
    return scores.masked_fill(~key_mask[:, None, :], -torch.inf).softmax(dim=-1)


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
    """For each query, the sum of the values, ``[b, n_k, d]``, weighted by `attention_weights`.

    Returns:
        ``[b, n_q, d]``
    """
    return attention_weights(queries, keys, key_mask) @ values
