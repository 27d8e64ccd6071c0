"""Blobs over HTTP: stored whole or not at all, found by their digest alone."""

import hashlib
import socket
from collections.abc import Iterator

import httpx

from tests.integration.service_harness import Service, wait_until

pytest_plugins = ("tests.integration.service_fixtures",)

MEBIBYTE = 2**20


def test_a_blob_of_any_length_is_stored_under_its_digest(service: Service) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(20):
            yield bytes([number]) * MEBIBYTE

    content = b"".join(pieces())
    digest = hashlib.sha256(content).hexdigest()
    for _ in range(2):
        assert service.http.put("/v1/blobs", content=pieces()).json() == {"digest": digest, "size": 20 * MEBIBYTE}
    answer = service.http.get(f"/v1/blobs/{digest}")
    assert answer.content == content
    head = service.http.head(f"/v1/blobs/{digest}")
    assert (head.status_code, head.headers["content-length"]) == (200, str(20 * MEBIBYTE))


def test_an_empty_blob_is_a_blob(service: Service) -> None:
    assert service.http.put("/v1/blobs", content=b"").json() == {"digest": hashlib.sha256().hexdigest(), "size": 0}


def test_what_is_no_blob_is_not_found(service: Service) -> None:
    for digest in ("0" * 64, "luthier.db", "0"):
        for method in ("GET", "HEAD"):
            assert service.http.request(method, f"/v1/blobs/{digest}").status_code == 404
    assert service.http.get("/v1/blobs/..%2Fluthier.db").status_code == 404


def test_a_blob_that_breaks_off_is_not_there(service: Service) -> None:
    content = b"x" * MEBIBYTE
    url = httpx.URL(service.url)
    incoming = service.context.settings.home_dir / "blobs" / "incoming"
    with socket.create_connection((url.host, url.port or 0)) as connection:
        head = f"PUT /v1/blobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * MEBIBYTE}\r\n\r\n"
        connection.sendall(head.encode())
        connection.sendall(content)
        wait_until(lambda: any(incoming.glob("*")))
    wait_until(lambda: not any(incoming.glob("*")))
    digest = hashlib.sha256(content).hexdigest()
    assert service.http.get(f"/v1/blobs/{digest}").status_code == 404
