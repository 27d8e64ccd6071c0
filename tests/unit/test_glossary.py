"""The glossary of the pages: one text, which docs/glossary.md copies, and entries for all terms that pages link to."""

import re
from pathlib import Path

import pytest

from service.dashboard import glossary

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "service" / "dashboard" / "templates").glob("*.jinja"))
ANCHORS = {entry.anchor for entry in glossary.entries()[1]}


def test_the_docs_have_the_same_text() -> None:
    assert (ROOT / "docs" / "glossary.md").read_bytes() == glossary.SOURCE.read_bytes()


def test_terms_are_unique_and_sorted() -> None:
    terms = [entry.term for entry in glossary.entries()[1]]
    assert len(ANCHORS) == len(terms) > 30
    assert terms == sorted(terms, key=str.lower)


def test_links_between_entries_lead_somewhere() -> None:
    text = " ".join(paragraph for entry in glossary.entries()[1] for paragraph in entry.paragraphs)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= ANCHORS
    assert "](" not in text


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_pages_link_only_to_terms_that_there_are(template: Path) -> None:
    linked = re.findall(r'marks\.term\("([^"]+)"(?:, "([^"]+)")?\)', template.read_text("utf-8"))
    assert {anchor or words.lower().replace(" ", "-") for words, anchor in linked} <= ANCHORS


def test_code_links_and_markup_become_html() -> None:
    html = glossary._html("`a<b`, [rung](#rung), [more](search.md) & <i>")
    assert html == '<code>a&lt;b</code>, <a href="#rung">rung</a>, more &amp; &lt;i&gt;'


@pytest.mark.parametrize(("term", "anchor"), [("Bits per byte", "bits-per-byte"), ("eval_loss", "eval_loss")])
def test_anchors_are_those_of_github(term: str, anchor: str) -> None:
    assert glossary.anchor(term) == anchor
