"""Places of stores and results: folders of a disk, or URLs of an object store."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dynaprop.pipeline.errors import UsageError, did_you_mean
from dynaprop.pipeline.io.connections import S3
from dynaprop.pipeline.io.object_path import ObjectPath

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z0-9+.:-]*)?://", re.IGNORECASE)
# What follows ://. No bucket has a colon in its name, and a password may have a slash, as Amazon's have.
_PASSWORD = re.compile(r"/*[^/@]*:.*@", re.DOTALL)
# A put is all or nothing there; of what else fsspec knows (ftp, sftp, smb, ...) readers could meet the half of a file.
_PROTOCOLS = (*S3, "gs", "gcs", "az", "abfs", "abfss", "memory")

StoragePath = Path | ObjectPath
"""A folder or file of a disk, or a place in an object store."""


def storage_path(text: str) -> StoragePath:
    """Read a path, or a URL; ``file://`` is a path.

    Raises:
        UsageError: a URL of another kind, or one that is none, or that holds a password.
    """
    if not _URL.match(text):
        return Path(text)
    protocol, _, rest = text.partition("://")
    protocol = protocol.lower()
    try:
        parts = urlsplit(text)
    except ValueError:
        raise UsageError("a URL of a store makes no sense; write it as s3://bucket/folder") from None
    if _PASSWORD.match(rest):  # it would stand in messages, tables and process lists
        raise UsageError(
            f"the {protocol}:// URL of a store holds a password; give credentials as its own tools take them"
        )
    if protocol in ("file", "local"):
        return Path(unquote(parts.path)) if not parts.netloc else Path(unquote(f"/{parts.netloc}{parts.path}"))
    shown = f"{protocol}://{_without_secrets(rest)}"
    if protocol not in _PROTOCOLS:
        known = [*_PROTOCOLS, "file"]
        hint = did_you_mean(protocol, known)
        raise UsageError(f"{shown}: stores can lie on a disk and in object stores, not on {protocol}://{hint}")
    if parts.query or parts.fragment:
        raise UsageError(f"{shown}: the URL of a store ends with its folder, without ? and #")
    try:
        path = ObjectPath(protocol, tuple(part for part in rest.split("/") if part))
    except ValueError:
        raise UsageError(f"{shown}: the URL of a store has no . and .. in it") from None
    if not path.parts:
        raise UsageError(f"{shown}: name a bucket, as in {protocol}://bucket/folder")
    return path


def _without_secrets(rest: str) -> str:
    """What follows a URL's ://, without user, query and fragment: tokens are handed around in them."""
    return re.sub("^/*[^/]*@", "", re.split("[?#]", rest)[0])


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False too where looking fails (above it, a folder that is closed to us)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def children(place: StoragePath) -> list[StoragePath]:
    """What lies directly below a place; FileNotFoundError where there is no such folder, but not of an object store."""
    return [*place.iterdir()]


def matching(place: StoragePath, pattern: str) -> list[StoragePath]:
    """What lies below a place by a pattern, in order."""
    return sorted(place.glob(pattern), key=lambda path: path.parts)
