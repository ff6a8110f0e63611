"""Errors meant for people: what went wrong, where, and what to do, in one line."""

from dynaprop.pipeline.printable import printable

_LONGEST = 1000  # characters of a message; files may have lines of any length


class DynapropError(Exception):
    """Something failed although the request made sense; the command line exits with 1.

    Args:
        message: what went wrong, where, and what to do. What cannot be printed in it (ends of lines, control sequences
            of terminals, halves of surrogate pairs) is escaped, and what is too long loses its middle.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class UsageError(DynapropError):
    """The request itself is wrong (an unknown name, a bad value); the command line exits with 2."""

    exit_code = 2


class InfrastructureError(DynapropError):
    """What the work stands on failed, such as a store or a worker; another try may help."""


class UnfitWorker(InfrastructureError):
    """A worker of a cluster lacks something; another one may have it."""


def _one_line(message: str) -> str:
    message = printable(message)
    if len(message) > _LONGEST:  # the place stands at the beginning, the remedy at the end
        message = f"{message[: _LONGEST - 405]} ... {message[-400:]}"
    return message


def did_you_mean(name: str, known: list[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or the known names, or nothing."""
    from difflib import get_close_matches

    if len(name) <= _LONGEST and (close := get_close_matches(name, known, n=1)):
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(sorted(known))})" if known else ""
