"""The HTTP transport of the client: requests, paging, and the service's errors as classes of `luthier.errors`."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel

from luthier.api_types import (
    Checkpoint,
    Event,
    FileObject,
    Job,
    Page,
    Schedule,
    ScheduleRun,
    Trial,
    WebhookDelivery,
    WebhookEndpoint,
)
from luthier.errors import LuthierError, Unreachable, UserError, tree
from luthier.keys import well_formed

R = TypeVar("R", bound=BaseModel)
L = TypeVar("L", FileObject, Job, Event, Trial, Schedule, ScheduleRun, WebhookDelivery, WebhookEndpoint, Checkpoint)

DEFAULT_URL: Final = "http://127.0.0.1:8420"
PAGE: Final = 1000


class Line:
    """One connection pool to one service."""

    def __init__(self, base_url: str = DEFAULT_URL, *, api_key: str | None = None, timeout: float = 60.0) -> None:
        """`api_key` defaults to the environment variable LUTHIER_API_KEY; raises UserError if it is not a valid key.

        `timeout` is in seconds. Uploads and the creation of jobs wait for as long as the service checks the rows.
        """
        self.base_url = base_url.rstrip("/")
        self._patient = httpx.Timeout(timeout, read=None)
        # No proxy: the service is on this machine or in its network.
        self._http = httpx.Client(
            base_url=self.base_url, headers=authorization(api_key), timeout=timeout, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _one(self, kind: type[R], method: str, path: str, **request: Any) -> R:
        return kind.model_validate_json(self._send(method, path, **request).content)

    def _list(
        self, kind: type[Page[L]], path: str, limit: int | None = None, wanted: Mapping[str, Any] | None = None
    ) -> list[L]:
        """Return the items of all pages, up to `limit`."""
        found: list[L] = []
        more = True
        while more and (limit is None or len(found) < limit):
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            after = {"after": found[-1].id} if found else {}
            page = self._one(kind, "GET", path, params={**(wanted or {}), **after, "limit": size})
            found += page.data
            more = page.has_more
        return found

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._stream(method, path, **request) as response:
            response.read()
            return response

    @contextmanager
    def _stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, path, **request) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                yield response
        except httpx.ReadTimeout as error:
            raise Unreachable(
                f"The Luthier service at {self.base_url} was reached, but has not answered in time. It may still work "
                "on the request."
            ) from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"No Luthier service answers at {self.base_url}: {reason}") from error


class Pieces(RawIOBase):
    """Turns pieces of bytes into a stream for tarfile."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return taken


def unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> Path:
    """Unpack a member of an archive into `folder`; return the file."""
    archive.extract(member, folder, filter="data")  # the filter refuses paths outside the folder
    return folder / member.name


def authorization(api_key: str | None = None) -> dict[str, str]:
    """Return the header with the key, or with LUTHIER_API_KEY; empty if there is neither.

    Raises UserError for text that is not a valid key.
    """
    given = (api_key or os.environ.get("LUTHIER_API_KEY", "")).strip()
    if given and not well_formed(given):
        raise UserError("LUTHIER_API_KEY is not a valid API key. Check that you copied all of it.", param="api_key")
    return {"Authorization": f"Bearer {given}"} if given else {}


def error_of(response: httpx.Response) -> LuthierError:
    """Return the service's error as its class; a LuthierError with the text if the response has another shape."""
    try:
        return error_in(response.json())
    except (ValueError, KeyError, TypeError):
        return LuthierError(f"{response.request.url} returned {response.status_code}: {response.text[:200]}")


def error_in(body: Mapping[str, Any]) -> LuthierError:
    """Return the error in a response of the service as its class."""
    found = body["error"]
    return tree()[found["code"]](found["message"], param=found["param"])
