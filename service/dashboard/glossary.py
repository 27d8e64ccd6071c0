"""The page of the glossary, rendered from glossary.md in this folder. docs/glossary.md is a copy of that file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from fastapi import APIRouter, Request, Response
from markupsafe import Markup, escape

from service.dashboard.layout import page

router = APIRouter(include_in_schema=False)

SOURCE: Final = Path(__file__).parent / "glossary.md"
_INLINE: Final = re.compile(r"`(?P<code>[^`]+)`|\[(?P<text>[^\]]+)\]\((?P<address>[^)\s]+)\)")


class Entry(NamedTuple):
    """A term and the paragraphs that explain it, as HTML."""

    term: str
    anchor: str
    paragraphs: tuple[Markup, ...]


@router.get("/glossary")
def show_glossary(request: Request) -> Response:
    introduction, found = entries()
    return page(request, "glossary.html.jinja", title="Glossary", introduction=introduction, entries=found)


@cache
def entries() -> tuple[tuple[Markup, ...], tuple[Entry, ...]]:
    """Return the paragraphs before the first term, and the terms in the order of the file."""
    introduction, *sections = re.split(r"^## ", SOURCE.read_text("utf-8"), flags=re.MULTILINE)
    found = []
    for section in sections:
        term, _, text = section.partition("\n")
        found.append(Entry(term=term.strip(), anchor=anchor(term), paragraphs=_paragraphs(text)))
    return _paragraphs(introduction.partition("\n")[2]), tuple(found)


def anchor(term: str) -> str:
    """Return the id of a heading as GitHub makes it: `Bits per byte` becomes `bits-per-byte`."""
    return re.sub(r"[^\w\- ]", "", term.strip().lower()).replace(" ", "-")


def _paragraphs(text: str) -> tuple[Markup, ...]:
    return tuple(_html(" ".join(part.split())) for part in re.split(r"\n\s*\n", text) if part.strip())


def _html(text: str) -> Markup:
    """Turn Markdown's `code` and links to terms into HTML, and a link to another file into its text."""

    def replaced(found: re.Match[str]) -> str:
        if found["code"]:
            return f"<code>{found['code']}</code>"
        return (
            f'<a href="{found["address"]}">{found["text"]}</a>' if found["address"].startswith("#") else found["text"]
        )

    return Markup(_INLINE.sub(replaced, str(escape(text))))
