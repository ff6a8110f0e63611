"""What to do about an error, as the command line says it."""

import ast
import pickle
import string
from typing import get_args

import pytest

from dynaprop.flows.terminal.remedies import ON_THE_COMMAND_LINE, as_shown
from dynaprop.pipeline.errors import IN_PYTHON, DynapropError, RemedyName, UsageError
from tests.conftest import REPOSITORY


def places(words: str) -> set[str]:
    """What is filled in into the words of a remedy."""
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


def named() -> list[tuple[str, str, set[str]]]:
    """Where code names a remedy, which ones, and the values that it gives."""
    found = []
    for floor in ("pipeline", "heads", "flows"):
        for file in sorted((REPOSITORY / floor).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                if "remedy" in given:
                    names = [each.value for each in ast.walk(given.pop("remedy")) if isinstance(each, ast.Constant)]
                    found += [(f"{file.name}:{node.lineno}", name, set(given)) for name in names]
    return found


def test_each_remedy_has_words_for_both_and_is_used():
    assert set(IN_PYTHON) == set(ON_THE_COMMAND_LINE) == set(get_args(RemedyName))
    assert set(IN_PYTHON) == {name for _, name, _ in named()}
    for name, words in ON_THE_COMMAND_LINE.items():
        assert places(words) <= places(IN_PYTHON[name]) | {"problem"}, name


def test_each_call_gives_what_the_words_need():
    for where, name, given in named():
        for words in (IN_PYTHON[name], ON_THE_COMMAND_LINE[name]):
            assert places(words) <= {"problem"} | given, where


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (DynapropError("a is damaged", remedy="repair"), "a is damaged; run `dynaprop verify TARGET --repair`"),
        (DynapropError("a is in use", remedy="wait"), "a is in use; add --wait to wait for it"),
        (
            DynapropError("none;", remedy="transcode", target="my videos", options={"short_side": 16}),
            "none; run: dynaprop transcode 'my videos' --short-side 16",
        ),
        (
            UsageError("none", remedy="keep by training", options={"recipe": "a b", "n_s": 9, "seeds": range(4)}),
            "none; `dynaprop train TARGET --recipe 'a b' --n-s 9 --seeds 4` keeps it",
        ),
        (
            UsageError("two", remedy="choose frames", choices=[{"n_t": 2}, {"n_t": 6}]),
            "two; say which: --n-t 2 or --n-t 6",
        ),
        (
            UsageError("onnx, not installed here; run: pip install it", remedy="install onnx"),
            "--onnx needs onnx, not installed here; run: pip install it",
        ),
        (UsageError("a\nb {target}"), r"a\nb {target}"),
        (UsageError("a\nb {target}", remedy="repair"), r"a\nb {target}; run `dynaprop verify TARGET --repair`"),
        (ValueError("of another kind"), "of another kind"),
    ],
)
def test_as_shown(error, shown):
    assert as_shown(error) == as_shown(pickle.loads(pickle.dumps(error))) == shown
