"""Static files of the pages: styles and ES modules, without a build step or external sources.

All files share one version, which is part of their address. Browsers may cache them forever, and modules that import
each other by relative address always get the same version.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Header, Response

from luthier.errors import NotFound

router = APIRouter(prefix="/static", include_in_schema=False)

FOLDER: Final = Path(__file__).parent / "static"
MEDIA: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOR_GOOD: Final = "public, max-age=31536000, immutable"


@router.get("/{version}/{name}")
def asset(version: str, name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """Serve a file. For an outdated version serve the current file, uncached. Raises NotFound."""
    if name not in names():
        raise NotFound(f"Static file {name!r} was not found; the files are {', '.join(names())}")
    headers = {
        "Cache-Control": FOR_GOOD if version == present() else "no-store",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    content = _content(name)
    if "gzip" in accept_encoding:
        headers["Content-Encoding"] = "gzip"
        content = _packed(name)
    return Response(content, headers=headers, media_type=MEDIA[Path(name).suffix])


def address(name: str) -> str:
    """Return the address of a file in its current version."""
    assert name in names(), f"there is no static file {name}"
    return f"/static/{present()}/{name}"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all static files, sorted."""
    return tuple(sorted(path.name for path in FOLDER.iterdir() if path.suffix in MEDIA))


@cache
def present() -> str:
    """Return the current version: a hash of all files."""
    digest = hashlib.sha256()
    for name in names():
        digest.update(name.encode() + b"\0" + _content(name))
    return digest.hexdigest()[:12]


@cache
def _content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@cache
def _packed(name: str) -> bytes:
    return gzip.compress(_content(name), 6, mtime=0)
