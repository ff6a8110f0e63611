"""What the paper reports, row by row, with its source: shown beside our results, never mixed with them."""

import re
from pathlib import Path

import pandas as pd

PAPER = "Kim et al., Efficient Action Recognition via Dynamic Knowledge Propagation, ICCV 2021"

DATASET_NAMES = {"activitynet-1.3": "ActivityNet 1.3", "mini-kinetics": "Mini-Kinetics"}
"""The published data sets by their names in the catalog."""

_FILE = Path(__file__).with_name("published.csv")


def published_rows(table: str | None = None) -> pd.DataFrame:
    """The rows of Tables 1 to 5, in the paper's order.

    Columns: ``dataset``, ``table``, ``method``, ``backbone`` (``ResNet`` or ``EfficientNet``), ``model`` (a name in
    ``heads.model.setting.MODELS``, null for other people's methods), ``fusion_s``, ``fusion_t``, ``losses``, ``metric``
    (``map`` or ``top1``), ``value`` (percent), ``gflops`` a video, ``n_s``, ``n_t`` (null where not given), ``source``
    and ``note`` (where the paper contradicts itself).

    Args:
        table: ``table1`` to ``table5``; None for all of them.
    """
    types = {"fusion_s": "boolean", "fusion_t": "boolean", "n_s": "Int64", "n_t": "Int64"}
    rows = pd.read_csv(_FILE, dtype=types)
    return rows if table is None else rows[rows["table"] == table].reset_index(drop=True)


def family_of(feature_key: str) -> str | None:
    """``backbone`` of the published rows that features stand beside, from the models in their key; None for others.

    The recipe's name would not do: anybody may call a recipe anything.
    """
    for family in ("ResNet", "EfficientNet"):
        if all(family.lower() in key for key in feature_key.split("+")):
            return family
    return None


def published_table(experiment: str) -> str:
    """The published table to set beside an experiment: its own, or Table 3, which compares the models."""
    return experiment if re.fullmatch("table[1-5]", experiment) else "table3"
