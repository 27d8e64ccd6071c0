"""A model hub of one model, over real HTTP: the few routes that `huggingface_hub` asks for to fetch a snapshot."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(name: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the files of `folder` as the model `name`; gives the address, and the names of the files asked for."""
    asked: list[str] = []
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            if path in (f"/api/models/{name}", *(f"/api/models/{name}/revision/{r}" for r in ("main", REVISION))):
                listing = [{"rfilename": file} for file in files]
                self._send(json.dumps({"id": name, "sha": REVISION, "siblings": listing}).encode(), body)
            elif path == f"/api/models/{name}/tree/{REVISION}":
                tree = [
                    {"type": "file", "path": file, "size": files[file].stat().st_size, "oid": file} for file in files
                ]
                self._send(json.dumps(tree).encode(), body)
            elif path.startswith(f"/{name}/resolve/{REVISION}/"):
                file = path.removeprefix(f"/{name}/resolve/{REVISION}/")
                asked.append(file)
                self._send(files[file].read_bytes(), body)
            else:
                kind = "RevisionNotFound" if path.startswith(f"/api/models/{name}/") else "RepoNotFound"
                self._send(b"{}", body, status=404, error=kind)

        def _send(self, content: bytes, body: bool, status: int = 200, error: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
