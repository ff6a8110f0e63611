"""Errors meant for people: what went wrong, where, and what to do, in one line."""


class DynapropError(Exception):
    """Something failed although the request made sense; the command line exits with 1."""

    exit_code = 1


class UsageError(DynapropError):
    """The request itself is wrong (an unknown name, a bad value); the command line exits with 2."""

    exit_code = 2


def did_you_mean(name: str, known: list[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or the known names, or nothing."""
    from difflib import get_close_matches

    if close := get_close_matches(name, known, n=1):
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(sorted(known))})" if known else ""
