"""What the entries of the catalog are made of: strict models, paths with environment variables, ranges of numbers."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from dynaprop.pipeline.clips import MOST_FRAMES
from dynaprop.pipeline.errors import did_you_mean
from dynaprop.pipeline.io.paths import storage_path

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^${}]*))?\}")


def refuse(reason: str) -> PydanticCustomError:
    """Return the error of a value that cannot be accepted, in words meant for people."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def expand_variables(text: str) -> str:
    """Replace ``${NAME}`` and ``${NAME:-default}`` by the environment's values.

    As in a shell, the default also stands in for an empty value. No other use of ``$`` is accepted. Where stores and
    results go to a URL, ``${DYNAPROP_HOME}`` is the current folder: what the catalog names are files.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            raise refuse(f"the environment variable {match['name']} is not set (write ${{{match['name']}:-default}})")
        if match["name"] != "DYNAPROP_HOME" or "://" not in found:
            return found
        home = storage_path(found)
        return str(home) if isinstance(home, Path) else "."

    if "$" in _VARIABLE.sub("", text):
        raise refuse(f"only ${{NAME}} and ${{NAME:-default}} are understood, not {text!r}")
    return _VARIABLE.sub(value, text)


def _expanded_path(value: Any) -> Any:
    if not isinstance(value, str):
        return value  # for pydantic to judge
    if not value.strip():
        raise refuse("should be a path, not an empty text")
    try:
        return Path(expand_variables(value)).expanduser()
    except RuntimeError:
        raise refuse(f"{value!r} names the home of an unknown user") from None


def absolute_path(value: Any) -> Any:
    """Expand a path and make it absolute from the current folder; what is no path is returned as it came."""
    path = _expanded_path(value)
    return path.absolute() if isinstance(path, Path) else path


def _seeds(value: Any) -> Any:
    """A number n stands for the seeds 0 .. n-1."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
        raise refuse(f"should be a number of seeds (1 to 1000) or a list of them, not {value!r}")
    return tuple(range(value))


# Bounds that no sensible value comes near: what is beyond is a slip, and would take all memory, or for ever.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
FrameCount = Annotated[int, Field(ge=0, le=MOST_FRAMES)]
BranchFrames = Annotated[int, Field(ge=1, le=MOST_FRAMES)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
AnyPath = Annotated[Path, BeforeValidator(_expanded_path)]
AbsolutePath = Annotated[Path, BeforeValidator(absolute_path)]
# YAML has lists, not tuples: the container may be either, what it holds stays strict.
FrameCounts = Annotated[tuple[FrameCount, FrameCount], Strict(False)]
Triple = Annotated[tuple[float, float, float], Strict(False)]
PositiveTriple = Annotated[tuple[Positive, Positive, Positive], Strict(False)]
Counts = Annotated[tuple[Count, ...], Strict(False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[tuple[Seed, ...], Strict(False), Field(min_length=1), BeforeValidator(_seeds)]


class StrictModel(BaseModel):
    """Accepts known keys and exact types only, and cannot be changed afterwards."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    given_by_parser: ClassVar[frozenset[str]] = frozenset({"name", "source"})
    """Fields that are never keys of an entry: the entry's own name, and the file it stands in."""

    @model_validator(mode="before")
    @classmethod
    def _knows_keys(cls, entry: Any) -> Any:
        known = [key for key in cls.model_fields if key not in cls.given_by_parser]
        for key in entry if isinstance(entry, dict) else ():
            if key not in cls.model_fields:
                raise refuse(f"unknown key {key!r}{did_you_mean(str(key), known)}")
        return entry
