"""S3's compare-and-swap: a put that is carried out only if the object is still the one that was seen before.

With ``If-None-Match: *`` a put only creates, with ``If-Match`` it only replaces the version that it names (AWS since
November 2024; MinIO, Ceph and R2 have both, too).
"""

from collections.abc import Mapping
from typing import Any

from dynaprop.pipeline.io.object_path import ObjectPath
from dynaprop.pipeline.io.reaching import error_code, reaching

_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
LARGEST = 5 * 2**30 - 1  # bytes of a put, by S3's own rule; more has to come in parts, which know no condition


def put_if(path: ObjectPath, data: bytes, expected: str) -> Mapping[str, Any] | None:
    """Write an object in one request if it has the expected ETag, or, with an empty one, if there is none.

    Returns:
        What the store answers; None if it was another one, and then nothing has changed.

    Raises:
        StoreUnavailable: there was no answer, so that it may have been written or not.
        FileNotFoundError: there is nothing that the object could lie in.
    """
    conditions = {"IfMatch": expected} if expected else {"IfNoneMatch": "*"}
    try:
        with reaching(path, FileExistsError, _Refusal):
            try:
                return path.put(data, chunksize=LARGEST, **conditions)
            except OSError as error:
                if error_code(error) in _REFUSED:
                    raise _Refusal from error
                raise
    except (FileExistsError, _Refusal):
        return None
    except FileNotFoundError:
        if not expected:
            raise
        return None


class _Refusal(Exception):
    """A condition does not hold."""
