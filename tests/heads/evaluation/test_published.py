"""The paper's rows against the paper: its arithmetic, its counts, its contradictions."""

import pandas as pd
import pytest

from dynaprop.heads.evaluation.published import DATASET_NAMES, published_rows, published_table
from dynaprop.heads.model.setting import LOSSES, MODELS

COSTS = {"EfficientNet": (0.1, 1.8), "ResNet": (0.5, 4.1)}  # section 4.1: GFLOPs a frame of student and teacher


def test_every_row_of_the_tables_is_there():
    rows = published_rows()
    # Counted in the paper: Table 1 has 6 ResNet and 2 EfficientNet rows, Table 2 4 and 2.
    assert rows.groupby("table").size().to_dict() == {"table1": 8, "table2": 6, "table3": 7, "table4": 4, "table5": 4}
    assert set(rows["dataset"]) == set(DATASET_NAMES)
    assert rows["source"].str.startswith("Table ").all()
    assert set(rows["model"].dropna()) <= set(MODELS)
    assert set(rows["losses"].dropna()) <= set(LOSSES)
    assert set(rows.loc[rows["model"].isna(), "method"]) == {
        "AdaFrame",
        "LiteEval",
        "ListenToLook",
        "SCSampler",
        "AR-Net",
    }


def test_costs_of_the_papers_own_rows_are_frames_times_cost_a_frame():
    own = published_rows().dropna(subset=["model"])
    for row in own.itertuples():
        b_s, b_t = COSTS[row.backbone]
        assert row.gflops == pytest.approx(row.n_s * b_s + row.n_t * b_t), row


def test_the_whole_model_has_one_figure_in_every_table_of_activitynet():
    rows = published_rows()
    whole = rows[(rows["model"] == "dynamic") & (rows["backbone"] == "EfficientNet") & (rows["metric"] == "map")]
    whole = whole[whole["fusion_s"] & whole["fusion_t"] & (whole["losses"] == "vid+frm+cos")]
    assert whole["value"].tolist() == [81.2] * 4  # Tables 1, 3, 4 and 5


def test_contradictions_are_noted_and_real():
    rows = published_rows()
    table1, table3 = (rows[rows["table"] == name] for name in ("table1", "table3"))
    noted = rows.dropna(subset=["note"])
    assert noted["source"].tolist() == ["Table 1", "Table 3", "Table 3"]
    arnet = table1[(table1["method"] == "AR-Net") & (table1["backbone"] == "EfficientNet")]["value"].item()
    assert 81.2 - arnet == pytest.approx(1.5)  # the text: 0.5
    static = table3[table3["model"] == "static-avg"]["value"].item()
    teacher5 = table3[(table3["model"] == "teacher") & (table3["n_t"] == 5)]["value"].item()
    assert (static, teacher5) == (79.0, 80.1)  # the text: Static-STE Avg is the better one


@pytest.mark.parametrize(
    ("experiment", "table"),
    [("table1", "table1"), ("table5", "table5"), ("figure4", "table3"), ("table6", "table3"), ("default", "table3")],
)
def test_which_table_stands_beside_an_experiment(experiment, table):
    assert published_table(experiment) == table
    chosen = published_rows(published_table(experiment))
    assert isinstance(chosen, pd.DataFrame)
    assert set(chosen["table"]) == {table}
