"""The connections of a process to object stores, which fsspec holds."""

from functools import lru_cache
from typing import Any

from dynaprop.pipeline.errors import UsageError

S3 = ("s3", "s3a")
_PACKAGES = {"s3fs": "'dynaprop[s3]'", "gcsfs": "gcsfs", "adlfs": "adlfs"}
_CONNECTIONS = 32


def forget_connections() -> None:
    """Connect anew, with what the environment says now about endpoint and credentials."""
    file_system.cache_clear()


@lru_cache
def file_system(protocol: str, _process: int) -> Any:
    """The file system of fsspec, one a process: fsspec's own cache has one a thread, each with its connections."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol in S3:  # with one stream an object, none is asked for its size before it is read
        options |= {"max_concurrency": 1, "config_kwargs": {"max_pool_connections": _CONNECTIONS}}
    try:
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        package = next((name for name in _PACKAGES if name in str(error)), None)
        advice = f"; run: pip install {_PACKAGES[package]}" if package else ""
        raise UsageError(f"{protocol}:// cannot be read here: {error}{advice}") from None
