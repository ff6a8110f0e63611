"""What floors below flows/ may say: they serve Python as well, so they name no options of the command line."""

import ast
import re
from pathlib import Path

from tests.conftest import REPOSITORY

OPTION = re.compile(r"(?<![\w-])--[a-z]")


def texts_with_options(file: Path) -> list[str]:
    """String literals, parts of f-strings included, that name an option; docstrings and comments may."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docs = {  # a text that is a statement by itself is a docstring
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        f"{file.name}:{node.lineno}: {node.value}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docs
        and OPTION.search(node.value)
    ]


def test_no_message_below_flows_names_an_option():
    files = [file for floor in ("pipeline", "heads") for file in sorted((REPOSITORY / floor).rglob("*.py"))]
    assert len(files) > 100
    assert [text for file in files for text in texts_with_options(file)] == []


def test_options_are_found_where_they_are(tmp_path):
    made_up = tmp_path / "made_up.py"
    made_up.write_text(
        '"""Of --docs."""\n'
        "# a comment on --comments\n"
        "def f(x):\n"
        '    """Of --docs."""\n'
        '    print("nothing -- here", "a--b", "----")\n'
        '    raise ValueError(f"{x} is in use; add --wait to "\n'
        '        "wait")\n'
        'OPTION = "--output"\n',
        encoding="utf-8",
    )
    assert sorted(text.split(": ")[0] for text in texts_with_options(made_up)) == ["made_up.py:6", "made_up.py:8"]
