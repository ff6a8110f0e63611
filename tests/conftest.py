"""Fixtures shared by all tests: where the real videos are."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from dynaprop.pipeline.io.connections import forget_connections

if TYPE_CHECKING:
    from tests.s3_server import S3Server

settings.register_profile("dynaprop", deadline=None)  # a busy machine is no failure
settings.load_profile("dynaprop")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real videos (`ut-interaction/`, `weizmann/`): $DYNAPROP_DATA, else ../shared/data."""
    root = Path(os.environ.get("DYNAPROP_DATA", REPOSITORY.parent / "shared" / "data")).resolve()
    if not (root / "ut-interaction").is_dir():
        if "DYNAPROP_DATA" in os.environ:
            pytest.fail(f"DYNAPROP_DATA={root} has no ut-interaction/")
        pytest.skip(f"no real videos at {root}; set DYNAPROP_DATA")
    return root


@pytest.fixture(scope="session")
def s3_session() -> "Iterator[S3Server]":
    """One S3 server for all tests that need one."""
    from tests.s3_server import BUCKET, s3_server  # takes a second

    forget_connections()
    with s3_server() as server:
        server.client.create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def s3(s3_session, monkeypatch) -> "Iterator[S3Server]":
    """The server with an empty bucket, and this process and its children set up to use it."""
    for name, value in s3_session.environment.items():
        monkeypatch.setenv(name, value)
    s3_session.empty()
    yield s3_session
    s3_session.empty()


@pytest.fixture
def reconnect(s3) -> "Iterator[Callable[[], None]]":
    """Call it after the environment has changed, which connections do not notice."""
    yield forget_connections
    forget_connections()
