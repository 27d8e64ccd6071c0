"""Render a report as one self-contained HTML page, or as Markdown. Text from users is escaped in both."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from pydantic import Field

from luthier.metrics import MetricSpec, figure, seeds_count, shown, signed
from luthier.report import ComparisonReport, FrontReport, Report
from luthier.values import Frozen
from search.format import millions, seconds
from search.report.recommend import verdict_label

_MARKS: Final = re.compile(r"([\\`*_\[\]<>|~#])")
WIDTH, HEIGHT = 640, 260  # of the chart of the Pareto front, in pixels
LABEL_WIDTH, LABEL_HEIGHT = 90, 16
_ORIGINS: Final = {"memory": "warm start", "confirmation": "repeat seed", "user": "manual"}  # others as they are


class Bar(Frozen):
    """An interval on a common scale, as fractions of its width."""

    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    middle: float = Field(ge=0, le=1)
    zero: float = Field(ge=0, le=1)


class Dot(Frozen):
    """A design in the chart of the Pareto front, in pixels."""

    x: float
    y: float
    number: int
    radius: float
    label_left: bool
    label_y: float = Field(description="height of the label, below the labels that it would overlap")


def as_html(report: Report) -> str:
    """Return the report as an HTML page."""
    return _HTML.get_template("report.html.jinja").render(
        report=report,
        metrics=_metrics(report),
        bars=bars(report.comparisons),
        dots=dots(report.front),
        width=WIDTH,
        height=HEIGHT,
    )


def as_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    return _MARKDOWN.get_template("report.md.jinja").render(report=report, metrics=_metrics(report))


def _metrics(report: Report) -> list[MetricSpec]:
    """Return the metrics that the table of scores shows: the likelihood, and the reward where answers are graded."""
    return shown("card", *(one.metrics for one in report.scores))


def bars(comparisons: tuple[ComparisonReport, ...]) -> list[Bar]:
    """Place the comparisons' intervals on one scale that includes zero."""
    ends = [0.0, *(end for one in comparisons for end in (one.low, one.high, one.difference))]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.06 or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return (value - low) / (high - low)

    return [
        Bar(low=place(one.low), high=place(one.high), middle=place(one.difference), zero=place(0.0))
        for one in comparisons
    ]


def dots(front: tuple[FrontReport, ...]) -> list[Dot]:
    """Place the designs of the Pareto front: training cost to the right, better scores higher, parameters as area."""
    if len(front) < 2:
        return []
    times = [one.device_seconds for one in front]
    scores = [one.score for one in front]
    sizes = [one.parameters or 0 for one in front]
    upwards = front[0].score > front[-1].score  # the best design comes first
    best, worst = (max(scores), min(scores)) if upwards else (min(scores), max(scores))
    found: list[Dot] = []
    for one, size in zip(front, sizes, strict=True):  # from the top down
        along = _share(one.device_seconds, min(times), max(times))
        x, y = 56 + along * (WIDTH - 112), 28 + _share(one.score, best, worst) * (HEIGHT - 84)
        area = (size / max(sizes)) if max(sizes) else 1.0
        near = [dot.label_y for dot in found if abs(dot.x - x) < LABEL_WIDTH]
        label_y = max([y, *(other + LABEL_HEIGHT for other in near)])
        left = along > 0.85
        found.append(Dot(x=x, y=y, number=one.number, radius=3 + 6 * area**0.5, label_left=left, label_y=label_y))
    return found


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high == low else (value - low) / (high - low)


def _moment(stamp: int) -> str:
    return f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M} UTC"


def _score(value: float | None) -> str:
    return "–" if value is None else figure(value)


def _share_of(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _size(value: int | None) -> str:
    return "–" if value is None else millions(value)


def plain(text: str) -> str:
    """Return any text as one line of Markdown that shows it literally."""
    return _MARKS.sub(r"\\\1", " ".join(str(text).split()))


_HTML: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=select_autoescape(("html.jinja",), default=True),
)
_MARKDOWN: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown: the filter `plain` escapes text from users
)
for _environment in (_HTML, _MARKDOWN):
    _environment.filters |= {
        "moment": _moment,
        "score": _score,
        "signed": signed,
        "share": _share_of,
        "size": _size,
        "seconds": seconds,
        "seeds": seeds_count,
        "plain": plain,
        "verdict": verdict_label,
        "origin": lambda origin: _ORIGINS.get(origin, origin),
    }
