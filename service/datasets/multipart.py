"""Receive a dataset file: multipart/form-data is written to disk as it arrives, and refused once a limit is exceeded.

The framework's own form parser would read the whole file first. This one never holds more than a chunk in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, BinaryIO, Final

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from luthier.dataset.file_type import BOM
from luthier.errors import TooLarge, UserError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELD_BYTES: Final = 1024
MAX_NAME: Final = 255
ENVELOPE_BYTES: Final = 64 * 1024  # boundaries, part headers and small fields around the file
JSON_ENDINGS: Final = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that was received completely. It is deleted when the request ends."""

    path: Path
    filename: str
    bytes: int


@asynccontextmanager
async def receive(request: Request, *, max_bytes: int, max_row_bytes: int) -> AsyncIterator[Upload]:
    """Yield the form's `file`; its `purpose` is checked.

    Raises TooLarge while the body is still arriving: beyond `max_bytes`, or a line of a JSONL file beyond
    `max_row_bytes`. Raises UserError for any other fault of the form.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes + ENVELOPE_BYTES:
        raise _too_large(max_bytes)
    with tempfile.TemporaryDirectory(prefix="luthier-upload-") as folder:
        path = Path(folder) / "file"
        with path.open("wb") as target:
            form = _Form(target, max_bytes=max_bytes, max_row_bytes=max_row_bytes)
            parser = MultipartParser(_boundary(request), form.callbacks())
            received = 0
            try:
                async for chunk in request.stream():
                    received += len(chunk)
                    if received > max_bytes + ENVELOPE_BYTES:
                        raise _too_large(max_bytes)
                    await run_in_threadpool(parser.write, chunk)
            except MultipartParseError as error:
                raise UserError(f"the form cannot be read: {error}") from error
            except ClientDisconnect as error:
                raise UserError("the connection closed before the whole file was received", param="file") from error
            filename = form.finish()
        yield Upload(path=path, filename=filename, bytes=form.file_bytes)


class _Layout(Enum):
    """What is known of the file so far. Only in JSON Lines is a row one line."""

    JSON = auto()  # lines or an array: the first character decides
    LINES = auto()
    OTHER = auto()


@dataclass(kw_only=True)
class _Part:
    name: str = ""
    filename: str | None = None
    content: bytearray = field(default_factory=bytearray)


class _Form:
    """Callbacks of the parser. They run in its `write`, so that their exceptions end the request."""

    def __init__(self, target: BinaryIO, *, max_bytes: int, max_row_bytes: int) -> None:
        self.file_bytes = 0
        self._target = target
        self._max_bytes = max_bytes
        self._max_row_bytes = max_row_bytes
        self._header = bytearray()
        self._header_value = bytearray()
        self._part = _Part()
        self._filename: str | None = None
        self._purpose: str | None = None
        self._whole = False
        self._layout = _Layout.OTHER
        self._line, self._line_bytes = 1, 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_text,
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_content,
            "on_part_data": self._content,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def finish(self) -> str:
        """The file's name. Raises UserError for a form that is not complete."""
        if not self._whole:
            raise UserError("the form ends before its closing boundary: the upload is incomplete", param="file")
        if self._filename is None:
            raise UserError("file is missing: send it as a file field of multipart/form-data", param="file")
        if self._purpose is None:
            raise UserError("purpose is missing; expected 'fine-tune'", param="purpose")
        return self._filename

    def _begin_part(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._header_value))
            self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options:
                self._part.filename = _base_name(options[b"filename"].decode("utf-8", "replace"))
        self._header.clear()
        self._header_value.clear()

    def _begin_content(self) -> None:
        match self._part.name:
            case "file" if self._part.filename is None:
                raise UserError("file must be a file field, with a file name", param="file")
            case "file" if self._filename is not None:
                raise UserError("the form has more than one file; upload each in its own request", param="file")
            case "file":
                self._filename = self._part.filename
                by_name = (self._filename or "").lower().endswith(JSON_ENDINGS)
                self._layout = _Layout.JSON if by_name else _Layout.OTHER
            case "purpose" if self._purpose is not None:
                raise UserError("the form has more than one purpose", param="purpose")
            case "purpose":
                pass
            case other:
                raise UserError(f"unknown form field {other!r}; expected file and purpose", param=other)

    def _content(self, data: bytes, start: int, end: int) -> None:
        chunk = data[start:end]
        if self._part.name == "file":
            self._file_content(chunk)
            return
        self._part.content += chunk
        if len(self._part.content) > MAX_FIELD_BYTES:
            raise TooLarge(f"{self._part.name} is longer than {MAX_FIELD_BYTES:,} bytes", param=self._part.name)

    def _file_content(self, chunk: bytes) -> None:
        self.file_bytes += len(chunk)
        if self.file_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        if self._layout is _Layout.JSON and (start := chunk.removeprefix(BOM).lstrip()):
            self._layout = _Layout.OTHER if start.startswith(b"[") else _Layout.LINES
        if self._layout is not _Layout.OTHER:
            self._check_lines(chunk)
        self._target.write(chunk)

    def _check_lines(self, chunk: bytes) -> None:
        for position, piece in enumerate(chunk.split(b"\n")):
            if position > 0:
                self._line, self._line_bytes = self._line + 1, 0
            self._line_bytes += len(piece)
            if self._line_bytes > self._max_row_bytes:
                raise TooLarge(
                    f"{self._filename}: line {self._line} is longer than {self._max_row_bytes:,} bytes, the limit of "
                    "one row (LUTHIER_MAX_ROW_BYTES)",
                    param="file",
                )

    def _end_part(self) -> None:
        if self._part.name == "purpose":
            self._purpose = self._part.content.decode("utf-8", "replace")
            if self._purpose != "fine-tune":
                raise UserError(f"purpose must be 'fine-tune', not {self._purpose[:80]!r}", param="purpose")

    def _end(self) -> None:
        self._whole = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        found = kind.decode("latin-1") or "nothing"
        raise UserError(f"Content-Type must be multipart/form-data, not {found}", param="file")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 256:
        raise UserError("Content-Type multipart/form-data needs a boundary of 1 to 256 characters", param="file")
    return boundary


def _base_name(filename: str) -> str:
    """Return the last part of a POSIX or Windows path, without control characters. It is shown, never opened."""
    base = PureWindowsPath(PurePosixPath(filename).name).name
    return "".join(character for character in base if character.isprintable())[-MAX_NAME:] or "file"


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        f"the file is larger than {max_bytes:,} bytes, the limit of an upload (LUTHIER_MAX_UPLOAD_BYTES)", param="file"
    )
