"""Streams of blobs and tar archives as responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

from fastapi.responses import StreamingResponse

from luthier.store.rows import TrialRecord
from luthier.worker_protocol import Artifact
from service.context import Context, utc_now
from service.exports.tar_stream import Archive, Entry, of_blob, of_text

CHUNK: Final = 1 << 20
CARD: Final = "README.md"
TAR: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/x-tar": {}}, "description": "A tar stream"}
}


def pieces(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a stream in pieces, and close it."""
    with stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def tar_of(ctx: Context, trial: TrialRecord, artifact: Artifact, filename: str, card: str = "") -> StreamingResponse:
    """Return a trial's weights as a download. `card` is appended to the model card."""
    entries = [of_blob(ctx.blobs, path, digest) for path, digest in artifact.files.items() if path != CARD or not card]
    if card and CARD in artifact.files:
        with ctx.blobs.open(artifact.files[CARD]) as stream:
            entries.append(of_text(CARD, stream.read().decode() + card))
    return tar(entries, trial, filename)


def tar(entries: Iterable[Entry], trial: TrialRecord, filename: str) -> StreamingResponse:
    archive = Archive(entries, trial.finished_at or utc_now())
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Content-Length": str(archive.bytes)}
    return StreamingResponse(iter(archive), 200, headers, "application/x-tar")
