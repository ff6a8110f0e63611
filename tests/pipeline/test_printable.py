"""What people are shown of names: nothing that cannot be seen, and commands that mean what they say."""

import subprocess
import sys
import unicodedata

import pytest

from dynaprop.pipeline.printable import printable, shell_line

_HOSTILE = [
    "\x1b]0;title\x07",
    "\x1b[31mred\x9b0m",
    "two\nlines\r\n",
    "\u202eturned\u2066",
    "zero\u200bwidth\ufeff",
    "half\udcff",
    "filler\u3164\u115f",
    "it's\x1b'\\n$HOME`id`",
    "tab\there",
]


@pytest.mark.parametrize("name", _HOSTILE)
def test_what_cannot_be_seen_is_escaped(name: str) -> None:
    shown = printable(name)
    assert shown != name
    bad = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    assert not [character for character in shown if unicodedata.category(character) in bad]
    assert shown.encode("utf-8").decode() == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("name", ["plain", "é ü 走る", "[red]x[/red]", "back\\slash", "👍"])
def test_what_can_be_seen_stays(name: str) -> None:
    assert printable(name) == name


def test_every_character_is_seen_or_escaped() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        shown = printable(character)
        assert shown.isprintable() and shown
        assert shown == character or shown.isascii()


@pytest.mark.parametrize(
    "name", [*_HOSTILE[:-4], "it's\x1b'\\n$HOME`id`", "tab\t1here", "plain", "a b", "é\x1bf", "\x0b0"]
)
def test_a_pasted_command_means_the_same_name(name: str) -> None:
    line = shell_line("printf", "%s", name)
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == name.encode()


def test_a_pasted_command_names_a_file_of_any_bytes() -> None:
    line = shell_line("printf", "%s", b"\xff\xfe0".decode("utf-8", "surrogateescape"))
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == b"\xff\xfe0"
