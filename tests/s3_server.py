"""A real S3 API on loopback: moto's server in a thread, which counts requests and disturbs those that it is told to."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from dynaprop.pipeline.io.object_path import ObjectPath

BUCKET = "features"
SECRET = "secret-of-the-test"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",  # a server that is away is away
}

Disturbance = Literal["refuse", "lose"]
"""``refuse``: 403, which no client tries again. ``lose``: carried out, but the answer is 500, which clients repeat."""


@dataclass
class S3Server:
    """A server with one bucket."""

    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each, in order."""
    disturb: Callable[[str, str], Disturbance | None] = lambda _method, _path: None
    """Called in the server's thread before each request with its method and path; it may take its time."""
    heeds_conditions: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """What a client has to know."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}

    @property
    def home(self) -> ObjectPath:
        return ObjectPath("s3", (BUCKET, "home"))

    @cached_property
    def client(self) -> Any:
        """Amazon's own client, which knows nothing of ours."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=ENVIRONMENT["AWS_DEFAULT_REGION"],
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=SECRET,
        )

    def objects(self) -> dict[str, bytes]:
        """Every object below the home by its key."""
        client, prefix = self.client, "home/"
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key.removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def put(self, key: str, data: bytes) -> None:
        """Write an object below the home."""
        self.client.put_object(Bucket=BUCKET, Key=f"home/{key}", Body=data)

    def empty(self) -> None:
        """Delete all objects, and behave well again."""
        self.disturb, self.heeds_conditions = (lambda _method, _path: None), True
        for key in self.objects():
            self.client.delete_object(Bucket=BUCKET, Key=f"home/{key}")
        self.requests.clear()


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
        disturbance = server.disturb(method, path)
        if not server.heeds_conditions:
            for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
                environ.pop(name, None)
        if disturbance is None:
            return backend(environ, start_response)
        if disturbance == "lose":
            for _ in backend(environ, lambda *_: None):
                pass
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("403 Forbidden" if disturbance == "refuse" else "500 Broken", [("Content-Length", "0")])
        return [b""]

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
