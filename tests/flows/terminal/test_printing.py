"""Tables and notes on the terminal."""

from types import SimpleNamespace

import pytest
from rich.table import Table

from dynaprop.flows.terminal.printing import print_table
from dynaprop.flows.terminal.progress import TERMINAL
from dynaprop.flows.terminal.table import print_reports
from dynaprop.heads.experiments.units import RunReport
from dynaprop.heads.model.setting import expand
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.rows import Asked
from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.workspace import tell_notes
from tests.heads.run_writer import SETTINGS, tables_of


def test_a_section_ends_with_a_rule(capsys):
    table = Table("model", "top-1 %")
    table.add_row("Student", "50.0", end_section=True)
    table.add_row("chance", "33.3", style="dim")
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    first, second = (next(i for i, line in enumerate(lines) if name in line) for name in ("Student", "chance"))
    assert second == first + 2 and set(lines[first + 1]) <= set("├─┼┤")


def test_models_that_another_command_has_replaced_are_not_left_out_silently(tmp_path):
    """Two trainings at once: the second one asks for other frames before the first one prints."""
    run = RunFolder(tmp_path / "run")
    own = Asked("train", "test", (0,), SETTINGS)
    run.ask(own)
    run.write("test-seed0", tables_of(0))
    run.ask(Asked("train", "test", (0,), (SETTINGS[0], *expand(["student"], [(8, 2)]))))
    run.collect()
    workspace = SimpleNamespace(dataset=SimpleNamespace(name="d", metric="top1"))
    with pytest.raises(
        DynapropError, match=r"as 'train' meanwhile, .* lack dynamic-4\+2, .* the same command joins it"
    ):
        print_reports([RunReport(str(run.path), (own,))], folds=0, workspace=workspace)
    run.ask(own)
    run.collect()
    assert len(run.rows_of(own)) == len(SETTINGS)


def test_notes_are_called_so_and_said_once(capsys):
    for _ in range(2):
        tell_notes(Annotations(videos=(), class_names=(), notes=("2 files are passed over: 2 .gif",)), TERMINAL)
    assert capsys.readouterr().err == "note: 2 files are passed over: 2 .gif\n"
