"""Errors meant for people: what went wrong, where, and what to do, in one line.

What to do may have another name in Python than on the command line: an error then names its remedy, whose words for
Python stand here, and those for the command line in flows/terminal/remedies.py.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from dynaprop.pipeline.printable import printable

_LONGEST = 1000  # characters of a message; files may have lines of any length

RemedyName = Literal[
    "repair",
    "wait",
    "wait and go on",
    "extract",
    "transcode",
    "keep by training",
    "keep by fine-tuning",
    "train heads",
    "begin with heads",
    "choose frames",
    "leave out",
    "leave out the choice",
    "right catalog",
    "report elsewhere",
    "leave out videos",
    "export elsewhere",
    "replace the export",
    "install onnx",
    "leave out onnx",
]
Arguments = Mapping[str, str | int | range]
"""Of a function: the options of its command."""
RemedyValue = str | Arguments | Sequence[Arguments]

IN_PYTHON: dict[RemedyName, str] = {
    "repair": "{problem}; verify and repair the dataset",
    "wait": "{problem}; give wait=True to wait for it",
    "wait and go on": "{problem}, and the same call with wait=True goes on",
    "extract": "{problem}; extract {target!r} with {options}",
    "transcode": "{problem} transcode {target!r} with {options}",
    "keep by training": "{problem}; training with {options} keeps it",
    "keep by fine-tuning": "{problem}; fine-tuning with {options} keeps it",
    "train heads": "{problem}; to make one, train {target!r} with {options}",
    "begin with heads": "{problem}: name a run as init, or give it epochs",
    "choose frames": "{problem}; say which: {choices}",
    "leave out": "{problem}: leave out {options}",
    "leave out the choice": "{problem}: leave out n_s, n_t and seed",
    "right catalog": "{problem}; name the catalog that it was trained with, or extract and train again",
    "report elsewhere": "{problem}; another output puts the report elsewhere",
    "leave out videos": "{problem}, leave out videos",
    "export elsewhere": "{problem}; give another output",
    "replace the export": "{problem}; force=True replaces it, another output puts this one elsewhere",
    "install onnx": "ONNX needs {problem}",
    "leave out onnx": "{problem}; leave out onnx",
}
"""What each remedy makes of what went wrong (``problem``) and of the values that come with it."""


class DynapropError(Exception):
    """Something failed although the request made sense; the command line exits with 1.

    Args:
        message: what went wrong, where, and what to do. What cannot be printed in it (ends of lines, control sequences
            of terminals, halves of surrogate pairs) is escaped, and what is too long loses its middle.
        remedy: what to do, where the command line names it otherwise than Python; the message is then without it.
        values: what the remedy's words need: names, arguments of a function, or several such to choose from.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: RemedyName | None = None, **values: RemedyValue) -> None:
        self.problem = message
        self.remedy = remedy
        self.values = values  # these three come through pickle beside the message
        if remedy is not None:
            words = {name: _in_python(value) for name, value in values.items()}
            message = IN_PYTHON[remedy].format(problem=message, **words)
        super().__init__(one_line(message))


class UsageError(DynapropError):
    """The request itself is wrong (an unknown name, a bad value); the command line exits with 2."""

    exit_code = 2


class InfrastructureError(DynapropError):
    """What the work stands on failed, such as a store or a worker; another try may help."""


class UnfitWorker(InfrastructureError):
    """A worker of a cluster lacks something; another one may have it."""


def one_line(message: str) -> str:
    """A message as an error has it."""
    message = printable(message)
    if len(message) > _LONGEST:  # the place stands at the beginning, the remedy at the end
        message = f"{message[: _LONGEST - 405]} ... {message[-400:]}"
    return message


def _in_python(value: RemedyValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={argument!r}" for name, argument in value.items())
    return " or ".join(map(_in_python, value))


def did_you_mean(name: str, known: list[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or the known names, or nothing."""
    from difflib import get_close_matches

    if len(name) <= _LONGEST and (close := get_close_matches(name, known, n=1)):
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(sorted(known))})" if known else ""
