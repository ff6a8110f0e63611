"""Why a store could not be asked, in one line."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from dynaprop.pipeline.errors import DynapropError, InfrastructureError

# Not the store's: wrong arguments and data.
_MISTAKES = (TypeError, AttributeError, LookupError, ArithmeticError, pa.ArrowException)


class StoreUnavailable(InfrastructureError):
    """A store does not answer, or refuses: nothing is known about what is in it, and trying again may help."""


@contextmanager
def reaching(place: object, *passed: type[Exception]) -> Iterator[None]:
    """Say in one line why a place could not be asked; files of a disk raise what they raise.

    Args:
        place: a path of a disk, or of an object store.
        passed: exceptions that mean something else, besides ``FileNotFoundError``.

    Raises:
        StoreUnavailable: there was no answer, or a refusal. It is no OSError, so that nobody takes it for damage.
    """
    try:
        yield
    except Exception as error:  # of a kind that each file system has for itself
        if isinstance(place, Path) or isinstance(error, (FileNotFoundError, DynapropError, *_MISTAKES, *passed)):
            raise
        if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise  # of a file of this machine
        raise StoreUnavailable(f"{place}: {_reason(error)}") from error


def error_code(error: Exception) -> str:
    """S3's own name of an error that s3fs has translated; empty of others."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _reason(error: Exception) -> str:
    text = re.sub(r"//[^/@\s]*@", "//", str(error)) or type(error).__name__  # an endpoint may hold a password
    text = re.sub(r"(//[^?\s'\"]*)\?[^\s'\"]*", r"\1", text)  # and a request a signature
    text = " ".join(text.split()).rstrip(".")
    if isinstance(error, PermissionError) or "redential" in type(error).__name__:
        return f"the store refuses: {text}; check the credentials and what they allow"
    return f"the store does not answer as it should: {text}; when it does, the same command goes on"
