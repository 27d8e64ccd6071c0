"""The client waits for uploads, whose rows are checked, and not for other answers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest

from luthier import Client
from luthier.api_types import FileFacts, FileObject
from luthier.errors import Unreachable
from luthier.task import DataKind

SECONDS = 0.6
FILE = FileObject(
    id="file-1",
    bytes=1,
    created_at=0,
    filename="a.jsonl",
    luthier=FileFacts(kind=DataKind.TEXT, format="text", rows=10),
)


class _Slow(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:
        time.sleep(SECONDS)
        body = FILE.model_dump_json().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError):  # a client that did not wait
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def _slow_service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_upload_may_take_longer_than_the_timeout_of_other_requests() -> None:
    with _slow_service() as url, Client(url, timeout=SECONDS / 3) as client:
        assert client.upload_stream(BytesIO(b"x"), "a.jsonl") == FILE
        with pytest.raises(Unreachable, match="was reached, but has not answered"):
            client.file("file-1")
    with Client(url, timeout=SECONDS) as client, pytest.raises(Unreachable, match="No Luthier service answers"):
        client.upload_stream(BytesIO(b"x"), "a.jsonl")
