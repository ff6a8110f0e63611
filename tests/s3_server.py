"""A real S3 API on loopback: moto's server in a thread, which counts requests and refuses what it is told to."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from pipeline import object_path

BUCKET = "features"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",  # a server that is away is away
}


@dataclass
class S3Server:
    """A server with one bucket.

    Refused requests get the status 403, which no client repeats.
    """

    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each, in order."""
    refuse: Callable[[str, str], bool] | None = None
    """Whether a request, by method and path, is refused."""
    heeds_conditions: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """What a client has to know."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as by real servers

    def log(self, *_: Any, **__: Any) -> None:
        pass


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve on a free port until the end of the block."""
    backend = DomainDispatcherApplication(create_backend_app)
    server = S3Server("")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        server.requests.append((method, path))
        if server.refuse is not None and server.refuse(method, path):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        if not server.heeds_conditions:
            for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
                environ.pop(name, None)
        return backend(environ, start_response)

    http = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture(scope="session")
def _s3_session() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(_s3_session: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The session's server with an empty bucket, and this process set up to use it."""
    import boto3

    server = _s3_session
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    object_path.forget_connections()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    server.requests.clear()
    yield server
    server.refuse, server.heeds_conditions = None, True
    object_path.forget_connections()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)
