"""Gathering ragged videos."""

import numpy as np
import torch

from dynaprop.heads.features.batch import gather_frames, pad_rows

ROWS = [np.array([4, 6]), np.array([0]), np.array([1, 2, 9])]


def test_pad_rows():
    index, mask = pad_rows(ROWS)
    assert index.tolist() == [[4, 6, 0], [0, 0, 0], [1, 2, 9]]
    assert mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_gather_frames_takes_each_videos_rows_and_zeros_at_padding():
    features = torch.randn(10, 4).half()
    features[0, 0] = torch.nan  # row 0 stands at padding, too: it must not get there
    z, mask = gather_frames(features, [ROWS[0], ROWS[2]], dtype=torch.float64)
    assert z.dtype == torch.float64 and mask.tolist() == [[True, True, False], [True] * 3]
    assert torch.equal(z[0], torch.stack([features[4], features[6], torch.zeros(4)]).double())
    assert torch.equal(z[1], features[[1, 2, 9]].double())


def test_gathering_leaves_the_features_as_they_are():
    features = torch.randn(10, 4)
    before = features.clone()
    gather_frames(features, ROWS)
    assert torch.equal(features, before)
