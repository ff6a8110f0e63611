"""Settings: how rows of a sweep become lines of a table."""

from typing import get_args

import pytest
from pydantic import ValidationError

from dynaprop.heads.model.setting import LOSSES, MODELS, Fusion, Setting, expand
from dynaprop.heads.training.trained_models import Training, trainings
from dynaprop.pipeline.catalog.sweeps import SweepRow
from dynaprop.pipeline.errors import UsageError


def test_every_model_takes_the_frames_of_its_branches():
    lines = {(setting.model, setting.n_s, setting.n_t) for setting in expand(MODELS, [(20, 5)])}
    assert lines == {
        ("student", 20, 0),
        ("student-kd", 20, 0),
        ("teacher", 0, 20),
        ("teacher", 0, 5),
        ("static-avg", 20, 5),
        ("static-weighted", 20, 5),
        ("dynamic", 20, 5),
        ("dynamic-shuffled", 20, 5),
    }
    assert [setting.n_t for setting in expand(["teacher"], [(0, 15)])] == [15]
    with pytest.raises(UsageError, match="dynamic cannot be measured at 20 student and 0 teacher frames"):
        expand(["dynamic"], [(20, 0)])


def test_tables_4_and_5_are_four_lines_each_with_one_in_common():
    table4 = expand(["dynamic"], [(20, 5)], fusion=["none", "teacher", "student", "both"])
    table5 = expand(["dynamic"], [(20, 5)], losses=["vid", "vid+frm", "vid+cos", "vid+frm+cos"])
    assert [(one.fusion_s, one.fusion_t) for one in table4] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert [one.losses for one in table5] == ["vid", "vid+frm", "vid+cos", "vid+frm+cos"]
    assert set(table4) & set(table5) == {Setting("dynamic", 20, 5, losses="vid+frm+cos")}
    assert len({one.name for one in table4 + table5}) == 7


def test_experiments_share_trainings():
    figure4 = expand(["static-avg", "dynamic"], [(20, 5)]) + expand(["teacher"], [(0, 20), (0, 5)])
    assert trainings(figure4) == {
        Training("teacher", 20, None, True, "vid"),
        Training("teacher", 5, None, True, "vid"),
        Training("student-kd", 20, True, True, "vid+frm"),
        Training("dynamic", 20, True, True, "vid+frm+cos"),
    }
    # Without the teacher's fusion there is another teacher.
    ablated = trainings(expand(["dynamic"], [(20, 5)], fusion=["student"]))
    assert {(one.model, one.fusion_t) for one in ablated} == {("teacher", False), ("dynamic", False)}


def test_the_models_alone_have_no_fusion_of_the_branch_that_they_lack():
    (student,) = expand(["student"], [(20, 0)], fusion=["teacher"])
    assert (student.fusion_s, student.fusion_t) == (False, None)
    assert student.name == "student-20+0-fusion-none"


def test_the_catalog_knows_the_same_models_losses_and_fusions():
    """pipeline/ spells them out, as it imports nothing of heads/."""
    SweepRow(models=MODELS, frames=[(20, 5)], fusion=get_args(Fusion))
    SweepRow(models=["dynamic"], losses=LOSSES)
    for wrong in ({"models": ["dynamo"]}, {"models": ["dynamic"], "losses": ["kd"]}):
        with pytest.raises(ValidationError):
            SweepRow(**wrong)
    (row,) = (field for field in SweepRow.model_fields.values() if "dynamic-shuffled" in str(field.annotation))
    assert set(get_args(get_args(row.annotation)[0])) == set(MODELS)
