"""The table of a job's trials: sorting, filters, pages, selection, and the differences between selected designs.

Its whole state is in the URL, so that it works without scripts and can be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Query
from pydantic import AfterValidator, BaseModel, Field

from luthier.design import Design, distinct
from luthier.errors import UserError
from luthier.metrics import listed, shown, values_at
from luthier.models.base_model import ModelFacts
from luthier.trial import TrialState, rung_name
from luthier.values import Frozen
from search.policy.ranking import DEFAULT, UNTUNED
from search.report.build import state
from search.report.charts import last
from search.report.importance import relative_ranks
from search.report.inputs import Case, Tried
from search.report.recommend import size
from search.space.learning_rate import multiplier

ON_A_PAGE: Final = 25
MOST_PICKED: Final = 8


def _sortable(sort: str) -> str:
    names = [*_KEYS, *(spec.name for spec in listed("leaderboard"))]
    if sort not in names:
        raise ValueError(f"must be one of {', '.join(names)}")
    return sort


Sort = Annotated[str, AfterValidator(_sortable)]
Show = Literal["designs", "complete", "running", "stopped", "failed", "confirmations"]


class View(Frozen):
    """The state of the table, as its URL has it."""

    sort: Sort = "standing"
    order: Literal["ascending", "descending"] = "ascending"
    show: Show = "designs"
    q: str = ""
    page: int = 1
    picked: tuple[int, ...] = ()
    differences: bool = False

    def address(self, **changes: object) -> str:
        """Return the URL query of this state with `changes`, without defaults. Most changes lead to the first page."""
        if not changes.keys() & {"page", "picked"}:
            changes["page"] = 1
        wanted = self.model_copy(update=changes)
        given = {name: value for name, value in wanted if value != View.model_fields[name].default}
        texts = {"picked": ",".join(map(str, wanted.picked)), "differences": "1"}
        return "?" + urlencode({name: texts.get(name, value) for name, value in given.items()})

    def sorted_by(self, sort: str) -> str:
        """Return the query that sorts by a column, or reverses the order if it is sorted by it already."""
        turned = sort == self.sort and self.order == "ascending"
        return self.address(sort=sort, order="descending" if turned else "ascending")

    def toggled(self, number: int) -> str:
        """Return the query with a trial selected, or deselected if it was selected."""
        others = tuple(each for each in self.picked if each != number)
        return self.address(picked=others if number in self.picked else (*others, number)[-MOST_PICKED:])


def view(
    sort: Sort = "standing",
    order: Literal["ascending", "descending"] = "ascending",
    show: Show = "designs",
    q: Annotated[str, Query(max_length=200)] = "",
    page: Annotated[int, Query(ge=1)] = 1,
    picked: Annotated[str, Query(max_length=200)] = "",
    differences: bool = False,
) -> View:
    return View(sort=sort, order=order, show=show, q=q, page=page, picked=numbers(picked), differences=differences)


Asked = Annotated[View, Depends(view)]


# recommended: the trial that the job's results stand for; winner: the same while nothing is recommended yet
Role = Literal["recommended", "winner", "default", "base"]


class Row(Frozen):
    """A row of the table. The scores of a repeated design are means over its seeds; a repeat has its own."""

    number: int
    id: str
    summary: str
    design: Design
    origin: str
    seed: int
    state: str
    tone: str
    place: int | None
    standing: float | None
    score: float | None
    seeds: int
    rung: str | None = Field(description="the rung of the score, as in `rung_name`; None: scored at the end")
    test: float | None
    metrics: dict[str, float] = Field(description="on the validation rows, by name")
    parameters: int | None
    seconds: float
    roles: tuple[Role, ...]
    error: str | None


class Column(Frozen):
    """The column of a metric."""

    name: str
    label: str
    description: str


class Table(Frozen):
    view: View
    columns: tuple[Column, ...]
    prefix: str
    rows: tuple[Row, ...]
    found: int
    total: int
    pages: int
    picked: tuple[Row, ...]
    differing: tuple[str, ...]
    common: tuple[tuple[str, str], ...]
    values: dict[int, dict[str, str]]

    def words(self, row: Row) -> str:
        """Return the design in one line, without the base model if all rows share it."""
        return row.summary.removeprefix(self.prefix).lstrip(" →,") or row.summary


def table(case: Case, asked: View, best: Tried | None, *, recommended: bool = True) -> Table:
    """Return the part of the table that is asked for.

    `best`: the trial that the job's results stand for. `recommended`: whether the report recommends it.
    """
    everything = rows(case, best, recommended=recommended)
    shared = {row.design.architecture.base for row in everything}
    prefix = shared.pop() if len(shared) == 1 else ""
    chosen = tuple(row for row in everything if row.number in asked.picked)
    found = [row for row in everything if _shown(row, asked)]
    key = _KEYS.get(asked.sort) or _by_metric(asked.sort)
    found.sort(key=key, reverse=asked.order == "descending")
    if asked.order == "descending":  # rows without a value stay last
        found.sort(key=lambda row: key(row)[0])
    pages = max(1, -(-len(found) // ON_A_PAGE))
    number = min(asked.page, pages)
    on_page = tuple(found[(number - 1) * ON_A_PAGE : number * ON_A_PAGE])
    compared = (chosen if len(chosen) > 1 else on_page) if asked.differences else ()
    values = {row.number: flat(row.design, case.facts) for row in compared}
    differing, common = differences(list(values.values()))
    return Table(
        view=asked.model_copy(update={"page": number}),
        columns=columns(case),
        prefix=prefix,
        rows=compared if asked.differences and len(chosen) > 1 else on_page,
        found=len(found),
        total=len(everything),
        pages=pages,
        picked=chosen,
        differing=differing,
        common=common,
        values=values,
    )


def columns(case: Case) -> tuple[Column, ...]:
    """Return the columns of measured metrics other than the score."""
    found = [tried.metrics for tried in case.tried]
    return tuple(
        Column(name=spec.name, label=spec.label_of(*found), description=spec.description)
        for spec in shown("leaderboard", *found)
        if spec is not case.metric
    )


def rows(case: Case, best: Tried | None, *, recommended: bool = True) -> list[Row]:
    """Return all trials of a job as rows, by number."""
    standing = relative_ranks(case.history)
    places = {tried.number: place for place, tried in enumerate(case.ranked, start=1)}
    role: Role = "recommended" if recommended else "winner"
    words = distinct([tried.past.design for tried in case.tried])
    return [
        _row(case, tried, said, _roles(tried, best, role), places, standing)
        for tried, said in zip(case.tried, words, strict=True)
    ]


def flat(design: Design, facts: Mapping[str, ModelFacts] | None = None, *, for_people: bool = True) -> dict[str, str]:
    """Return all settings of a design by name, prefixed by the stage if there are several stages.

    `for_people`: epochs that are only a limit are shown as such.

    With `facts` of the base models, the multiplier of each learning rate stands beside it.
    """
    base = (facts or {}).get(design.architecture.base)
    found = _fields(design.architecture, "")
    for index, stage in enumerate(design.stages, start=1):
        prefix = f"stage {index} " if len(design.stages) > 1 else ""
        found |= {f"{prefix}algorithm": stage.algorithm.kind, **_fields(stage.algorithm, prefix)}
        found |= {f"{prefix}update": stage.update.kind, **_fields(stage.update, prefix)}
        for name, value in _fields(stage.optimiser, prefix).items():
            limit = for_people and name == f"{prefix}epochs" and stage.optimiser.schedule == "constant"
            found[name] = f"at most {value}" if limit else value
            if base is not None and name == f"{prefix}learning rate":
                found[f"{name} multiplier"] = f"{multiplier(stage, base.hidden_size):g}"
    return found


def differences(designs: Sequence[dict[str, str]]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the names of the settings that differ, and the (name, value) pairs that all designs share."""
    names = list(dict.fromkeys(name for design in designs for name in design))
    differing = [name for name in names if len({design.get(name) for design in designs}) > 1]
    common = [(name, designs[0][name]) for name in names if name not in differing]
    return tuple(differing), tuple(common)


def numbers(listed: str) -> tuple[int, ...]:
    """Parse trial numbers such as 3,17. Raises UserError."""
    parts = [part for part in listed.split(",") if part]
    if not all(part.isdigit() for part in parts):
        raise UserError(f"picked must be trial numbers such as 3,17, not {listed!r}", param="picked")
    return tuple(dict.fromkeys(int(part) for part in parts))[:MOST_PICKED]


def _fields(part: BaseModel, prefix: str) -> dict[str, str]:
    """Return the settings that apply: a rule without its edit is left out."""
    found = {name: value for name, value in part if name != "kind" and value is not None}
    for rule, edit in (("depth_rule", "layers"), ("rope_rule", "rope_factor")):
        if edit not in found:
            found.pop(rule, None)
    return {f"{prefix}{name.replace('_', ' ')}": _said(value) for name, value in found.items()}


def _said(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _row(
    case: Case,
    tried: Tried,
    words: str,
    roles: tuple[Role, ...],
    places: dict[int, int],
    standing: dict[int, float],
) -> Row:
    past = tried.past
    scored = tried.complete or past.measured
    whole = tried.complete and past.confirms is None
    metrics = case.mean(tried.number) if whole else tried.metrics
    return Row(
        number=tried.number,
        id=tried.id,
        summary=words if past.confirms is None else f"repeat of #{past.confirms}, seed {tried.seed}",
        design=past.design,
        origin=tried.origin,
        seed=tried.seed,
        state=state(tried),
        tone="paused" if past.paused else past.state.value,
        place=places.get(tried.number),
        standing=standing.get(tried.number),
        score=_score(case, tried) if scored else None,
        seeds=len(case.seeds(tried.number)) if whole else 1,
        rung=None if tried.complete or not past.measured else rung_name(past.design, len(past.measured) - 1),
        test=case.metric.value(case.mean_on_test(tried.number)) if whole else case.test_value(tried),
        metrics={} if metrics is None else values_at("leaderboard", metrics),
        parameters=size(case, tried),
        seconds=past.device_seconds,
        roles=roles,
        error=tried.error,
    )


def _score(case: Case, tried: Tried) -> float:
    """Return the own score of a repeat, or the mean of a design over its seeds."""
    if tried.past.confirms is not None and tried.past.value is not None:
        return case.shown(tried.past.value)
    return last(case, tried)


def _roles(tried: Tried, best: Tried | None, role: Role) -> tuple[Role, ...]:
    baseline: dict[int, Role] = {UNTUNED: "base", DEFAULT: "default"}
    won: tuple[Role, ...] = (role,) if best is not None and tried.number == best.number else ()
    return (*won, *([baseline[tried.number]] if tried.number in baseline else []))


def _shown(row: Row, asked: View) -> bool:
    words = f"#{row.number} {row.summary} {row.origin} {row.state}".lower()
    return _SHOWN[asked.show](row) and all(word in words for word in asked.q.lower().split())


_STOPPED: Final = (TrialState.PRUNED, TrialState.CANCELLED)
_FAILED: Final = (TrialState.FAILED, TrialState.INFEASIBLE)
_SHOWN: Final[dict[Show, Callable[[Row], bool]]] = {
    "designs": lambda row: row.origin != "confirmation",
    "complete": lambda row: row.tone == TrialState.COMPLETE and row.origin != "confirmation",
    "running": lambda row: row.tone in (TrialState.LEASED, TrialState.WAITING),
    "stopped": lambda row: row.tone in (*_STOPPED, "paused"),
    "failed": lambda row: row.tone in _FAILED,
    "confirmations": lambda row: row.origin == "confirmation",
}
Key = Callable[[Row], tuple[bool, float, float, int]]


def _by_metric(name: str) -> Key:
    return lambda row: (name not in row.metrics, row.metrics.get(name, 0.0), 0.0, row.number)


# The first element is True for rows without a value, so that they come last.
_KEYS: Final[dict[str, Key]] = {
    "standing": lambda row: (
        row.place is None and row.standing is None,
        row.place if row.place is not None else 1e9,
        row.standing if row.standing is not None else 0.0,
        row.number,
    ),
    "number": lambda row: (False, row.number, 0.0, row.number),
    "score": lambda row: (row.score is None, row.score or 0.0, 0.0, row.number),
    "test": lambda row: (row.test is None, row.test or 0.0, 0.0, row.number),
    "size": lambda row: (row.parameters is None, row.parameters or 0, 0.0, row.number),
    "seconds": lambda row: (False, row.seconds, 0.0, row.number),
}
