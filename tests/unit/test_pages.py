"""Reports as pages: whole, self-contained, and nothing that a user wrote is markup in them."""

import itertools
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from luthier.report import Report
from luthier.trial import JobState, TrialState
from luthier.updates import Full
from search.report.build import explain
from search.report.inputs import Case
from service.results.report_html import as_html, as_markdown, bars, dots
from tests.unit.report_samples import broken, case, complete, default, design, untuned

EVIL = '<script>alert("x")</script> | **bold** [a](http://b) `code`'


class Page(HTMLParser):
    """The tags of a page, which must be closed in order, and its text."""

    EMPTY = ("meta", "rect", "line", "circle", "br", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "action") or name.startswith("on")
        ]
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def evil() -> Case:
    """A job in which everything that a user can name is markup."""
    named = design(Full(), base=EVIL)
    tried = [
        untuned(),
        default(),
        complete(2, named, 0.7, test=0.7),
        broken(3, named, TrialState.FAILED, EVIL),
    ]
    return case(tried, file=EVIL, fine_tuned_model=f"ft:{EVIL}", error=EVIL, state=JobState.FAILED, ended=EVIL)


CASES = {
    "searched": case(),
    "running": case([untuned()], state=JobState.RUNNING, finished_at=None, fine_tuned_model=None, ended=None),
    "queued": case([], state=JobState.QUEUED, finished_at=None, fine_tuned_model=None, ended=None),
    "two": case([untuned(), default()]),
    "evil": evil(),
}
REPORTS = {name: explain(one) for name, one in CASES.items()}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS.keys())
def test_the_page_needs_nothing_but_itself(report: Report) -> None:
    page = as_html(report)
    parsed = Page(page)
    assert parsed.links == []
    assert "script" not in parsed.tags
    assert "http://b" not in re.sub(r"\[a\]\(http://b\)", "", page)
    assert not re.search(r"url\(|@import", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_what_users_wrote_is_text_in_the_page() -> None:
    page = Page(as_html(REPORTS["evil"]))
    assert not {"script", "b", "strong"} & set(page.tags)
    assert page.text.count(EVIL) >= 5  # the model's name, the base, the file, the failure, the reason for the end


def test_what_users_wrote_is_text_in_markdown() -> None:
    rendered = MarkdownIt("commonmark").enable("table").render(as_markdown(REPORTS["evil"]))
    page = Page(rendered)
    assert not {"script", "a"} & set(page.tags)
    assert "code" not in page.tags
    assert page.text.count(EVIL) >= 5


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS.keys())
def test_tables_of_the_markdown_are_whole(report: Report) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", as_markdown(report), re.MULTILINE)
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    assert "\n\n\n" not in as_markdown(report)


def test_both_pages_say_what_the_report_says() -> None:
    report = REPORTS["searched"]
    html, markdown = Page(as_html(report)).text, as_markdown(report)
    for words in (report.headline, *report.recommendation.words, *report.weaknesses):
        assert words in html
        assert words.replace("_", r"\_") in markdown
    for one in report.comparisons:
        assert one.words in html
        assert f"| {one.against} (trial {one.number}) |" in markdown
    for one in report.tried:
        assert one.summary in html
    for one in report.rejected:
        assert one.words in html


def test_labels_of_the_front_stand_clear_of_each_other() -> None:
    report = REPORTS["searched"]
    first = report.front[0]
    close = tuple(
        first.model_copy(update={"number": n, "score": first.score + n / 1000, "device_seconds": 60.0 + n})
        for n in range(4)
    )
    far = first.model_copy(update={"number": 9, "score": 3.0, "device_seconds": 900.0})
    drawn = dots((*close, far))
    heights = [dot.label_y for dot in drawn[:4]]
    assert all(b - a >= 16 for a, b in itertools.pairwise(heights))
    assert drawn[4].label_y == drawn[4].y > drawn[0].y, "the better, the higher"
    assert dots(report.front[:1]) == []


def test_intervals_are_drawn_on_one_scale_with_zero_on_it() -> None:
    report = REPORTS["searched"]
    drawn = bars(report.comparisons)
    assert len({bar.zero for bar in drawn}) == 1
    for bar, one in zip(drawn, report.comparisons, strict=True):
        assert bar.low < bar.middle < bar.high
        assert (bar.high < bar.zero) == (one.verdict == "better beyond the noise")
    flat = report.comparisons[0].model_copy(update={"low": 0.0, "high": 0.0, "difference": 0.0})
    [bar] = bars((flat,))
    assert bar.low == bar.high == bar.zero == 0.5
