"""Ragged videos as padded tensors."""

from collections.abc import Sequence

import numpy as np
import torch


def pad_rows(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Put the row numbers of b videos, ``[n_v]`` each, side by side.

    Returns:
        (index, mask): int64 and bool ``[b, n]`` with n the largest n_v; index 0 and False at padding
    """
    counts = np.array([len(r) for r in rows])
    mask = np.arange(counts.max()) < counts[:, None]  # [b, n]
    index = np.zeros(mask.shape, dtype=np.int64)
    index[mask] = np.concatenate(rows)
    return index, mask


def gather_frames(
    features: torch.Tensor,
    rows: Sequence[np.ndarray],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gather the frames of b videos out of resident features.

    Rows are picked where the features lie, in the type they are stored in; only the batch travels to ``device``.

    Args:
        features: ``[rows, d]``
        rows: row numbers of each video, ``[n_v]``, at least one
        device: where the batch shall be
        dtype: type of the batch's features

    Returns:
        (z, mask): ``[b, n, d]`` with zeros at padding, and bool ``[b, n]``, False at padding
    """
    index, padded_mask = pad_rows(rows)
    mask = torch.from_numpy(padded_mask).to(device)  # [b, n]
    z = features[torch.from_numpy(index).to(features.device)].to(device).to(dtype)  # [b, n, d]
    return z.masked_fill_(~mask[:, :, None], 0.0), mask
