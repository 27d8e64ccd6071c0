"""A job's designs in columns, as input for charts."""

from __future__ import annotations

from luthier.api_types import Landscape, LandscapeAxis
from search.report.build import front, state
from search.report.importance import axes_of, importance, relative_ranks
from search.report.inputs import Case, Tried
from search.report.recommend import chosen, size


def landscape(case: Case) -> Landscape:
    """Return all designs that were scored at a rung or at the end, by number."""
    found = relative_ranks(case.history)
    shown = [tried for tried in case.designs if tried.number in found]
    values = [axes_of(tried.past.design, case.facts) for tried in shown]
    on_front = {one.number for one in front(case)}
    best = chosen(case)
    return Landscape(
        unit=case.unit,
        lower_is_better=case.lower_is_better,
        base=None if case.base is None else case.value(case.base),
        default=None if case.default is None else case.value(case.default),
        best=None if best is None else best.number,
        number=tuple(tried.number for tried in shown),
        summary=tuple(tried.past.design.summary() for tried in shown),
        state=tuple(state(tried) for tried in shown),
        score=tuple(case.value(tried) if tried.complete else None for tried in shown),
        seeds=tuple(len(case.seeds(tried.number)) for tried in shown),
        last=tuple(last(case, tried) for tried in shown),
        standing=tuple(found[tried.number] for tried in shown),
        device_seconds=tuple(tried.past.device_seconds for tried in shown),
        parameters=tuple(size(case, tried) for tried in shown),
        front=tuple(tried.number in on_front for tried in shown),
        axes=tuple(
            LandscapeAxis(
                axis=worth.axis,
                group=worth.group,
                values=tuple(axes.get(worth.axis) for axes in values),
                share=worth.share,
                weak=worth.weak,
                default=worth.default,
                best=worth.best,
                default_text=worth.default_text,
                best_text=worth.best_text,
                worth=worth.worth,
            )
            for worth in importance(case.history, case.facts)
        ),
    )


def last(case: Case, tried: Tried) -> float:
    """Return the latest score of a scored design: the mean over its seeds, or the score at its last rung."""
    return case.value(tried) if tried.complete else case.shown(tried.past.measured[-1].value)
