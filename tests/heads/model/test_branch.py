"""The scale of features."""

import numpy as np
import pytest
import torch

from dynaprop.heads.model.branch import Branch, measure_std
from dynaprop.pipeline.errors import DynapropError


def test_measure_std_is_numpys_whatever_the_slices():
    features = (torch.randn(1000, 7) * 3 + 5).half()
    expected = features.double().numpy().std()
    for rows_at_once in (1, 64, 5000):
        assert measure_std(features, np.arange(1000), rows_at_once=rows_at_once) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 2.0, np.nan, np.inf])
def test_features_without_variance_or_not_finite_are_refused(value):
    with pytest.raises(DynapropError, match="extract them again"):
        measure_std(torch.full((8, 4), value), np.arange(8))


def test_the_scale_is_saved_with_the_weights():
    saved = Branch(dim=4, key_dim=2, feature_std=2.5).state_dict()
    other = Branch(dim=4, key_dim=2)
    other.load_state_dict(saved)
    assert other.feature_std.item() == 2.5


def test_without_fusion_features_are_only_scaled():
    z = torch.randn(2, 3, 4)
    assert torch.equal(Branch(dim=4, fusion=False, feature_std=2.0)(z, torch.ones(2, 3, dtype=torch.bool)), z / 2)
