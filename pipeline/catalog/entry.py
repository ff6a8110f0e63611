"""What every entry of the catalog has: a frozen, strictly typed model.

The configuration stops here: what lies below takes plain keyword arguments, not these models.
"""

import re
from typing import ClassVar

from pydantic import Field, field_validator

from dynaprop.pipeline.catalog.fields import StrictModel, refuse


class Entry(StrictModel):
    """What every entry of the catalog has."""

    noun: ClassVar[str] = "entry"
    """What a person calls it."""

    name: str
    source: str = Field(default="", exclude=True, repr=False)
    """The catalog file, for messages; empty for an entry that stands in none."""

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise refuse("should be letters, digits, '.', '_' and '-' only, at most 100: folders are named after it")
        return name

    def place(self, key: str) -> str:
        """Return where a key of this entry stands, for messages."""
        return f"{self.source + ': ' if self.source else ''}{self.noun} {self.name!r}, key {key!r}"
