"""Names of files are bytes. Python reads them in the locale's encoding, and lists have them in UTF-8."""

import sys

from dynaprop.pipeline.errors import UsageError


def require_utf8_locale(name: str, *, where: object) -> None:
    """Check that a name means the same file and the same text to all processes, whatever their locale.

    Args:
        name: of a file, or a path, as Python has read it.
        where: it was found, for people.

    Raises:
        UsageError: it is not ASCII, and the locale is not UTF-8.
    """
    if not name.isascii() and (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise UsageError(
            f"{where}: this process's locale is not UTF-8 (file names are {encoding} to it), so {name!a} cannot be "
            "read; set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
        )
