"""Text that people are shown: names of files, classes and datasets may hold anything, and command a terminal by it."""

import os
import shlex

# Letters and marks to Python, and nothing at all to the eye.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")


def printable(text: str, *, kept: str = "") -> str:
    r"""Escape what cannot be seen, as Python writes it: ESC is ``\x1b``, a turn of the writing's direction ``\u202e``.

    These are control sequences of terminals, ends of lines, separators other than the space, halves of surrogate pairs,
    and what has no width or no meaning.

    Args:
        text: what is to be shown.
        kept: what stays nevertheless, such as ends of lines.
    """
    if text.isprintable() and _INVISIBLE.isdisjoint(text):
        return text
    return "".join(character if _is_seen(character) or character in kept else _escaped(character) for character in text)


def shell_line(*words: str) -> str:
    """A command as a shell takes it: pasted, it means these words, and shown, it is harmless."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    # $'...' of bash, zsh and ksh: a file's name is bytes.
    parts = (character if _is_plain(character) else _bytes_of(character) for character in word)
    return f"$'{''.join(parts)}'"


def _is_seen(character: str) -> bool:
    return character.isprintable() and character not in _INVISIBLE


def _is_plain(character: str) -> bool:
    return _is_seen(character) and character not in "\\'"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _bytes_of(character: str) -> str:
    try:
        data = os.fsencode(character)
    except UnicodeEncodeError:  # no file has it in its name
        data = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in data)
