"""The data of a job's charts: curves with the stages laid end to end, the designs, and the leases of each worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from luthier.api_types import Curves, Landscape, RungMark, Span, Timeline, TrialCurve, WorkerSpans
from luthier.metrics import deciding, objective_value
from luthier.store import Connection, events, jobs, measurements, trials
from luthier.store.rows import RungRecord
from luthier.trial import TrialState
from search.report import charts as designs
from service.context import Context
from service.results import report

Points = Sequence[tuple[int, int, float]]  # stage, step in the stage, value


def curves(c: Connection, job_id: str, name: str, limit: int) -> Curves:
    """Return one curve of all trials, at most `limit` points of each. Raises NotFound."""
    job, marks = jobs.get(c, job_id), trials.marks(c, job_id)
    found = measurements.of_job(c, job_id, name)
    numbers = {mark.id: mark.number for mark in marks}
    ends = {trial_id: _ends(points) for trial_id, points in found.items()}
    sign = deciding(job.judge.objective).sign
    complete = {mark.id for mark in marks if mark.state is TrialState.COMPLETE}
    return Curves(
        name=name,
        names=tuple(measurements.names(c, job_id)),
        trials=tuple(_curve(mark.number, found[mark.id], limit) for mark in marks if mark.id in found),
        rungs=tuple(
            RungMark(
                number=numbers[rung.trial_id],
                rung=rung.rung,
                step=rung.step + sum(ends.get(rung.trial_id, {}).get(stage, 0) for stage in range(rung.stage)),
                score=sign * objective_value(rung.metrics, job.judge.objective) + 0.0,
            )
            for rung in trials.rungs(c, job_id)
            if rung.trial_id not in complete or not _at_end(rung, ends.get(rung.trial_id, {}))
        ),
    )


def landscape(ctx: Context, c: Connection, job_id: str) -> Landscape:
    """Return all scored designs by column. Raises NotFound."""
    return designs.landscape(report.case_of(c, ctx, jobs.get(c, job_id), trials.of_job(c, job_id)))


def timeline(c: Connection, job_id: str) -> Timeline:
    """Return the leases of each worker, from the events about leases. Raises NotFound."""
    jobs.get(c, job_id)
    spans: dict[str, list[Span]] = {}
    leased: dict[tuple[int, int], str] = {}
    for event in events.with_data(c, job_id):
        data = event.data or {}
        if "lease" not in data:
            continue
        number, lease, at = data["number"], data["lease"], event.created_at.timestamp()
        if "worker" in data:
            leased[number, lease] = data["worker"]
            begun = Span(number=number, lease=lease, start=at, end=None, outcome=None)
            spans.setdefault(data["worker"], []).append(begun)
        elif (worker := leased.pop((number, lease), None)) is not None:
            ended = {"end": at, "outcome": data["state"]}
            spans[worker] = [
                span.model_copy(update=ended) if (span.number, span.lease) == (number, lease) else span
                for span in spans[worker]
            ]
    return Timeline(workers=tuple(WorkerSpans(worker=name, spans=tuple(spans[name])) for name in sorted(spans)))


def thin(values: Sequence[float], limit: int) -> list[int]:
    """Return the indices of at most `limit` of the values: the first, the last, and the lowest and highest of each
    interval between, so that the curve keeps its shape."""
    last = len(values) - 1
    if len(values) <= limit:
        return list(range(len(values)))
    pieces = max(1, (limit - 2) // 2)
    kept = [0]
    for start, end in pairwise(1 + (last - 1) * piece // pieces for piece in range(pieces + 1)):
        interval = values[start:end]
        kept += sorted({start + interval.index(min(interval)), start + interval.index(max(interval))})
    return [*kept, last]


def _curve(number: int, points: Points, limit: int) -> TrialCurve:
    ends = _ends(points)
    before = {stage: sum(ends[other] for other in ends if other < stage) for stage in ends}
    kept = [points[index] for index in thin([value for _, _, value in points], limit)]
    return TrialCurve(
        number=number,
        step=tuple(before[stage] + step for stage, step, _ in kept),
        value=tuple(float(f"{value:.6g}") for _, _, value in kept),
    )


def _at_end(rung: RungRecord, ends: Mapping[int, int]) -> bool:
    """Return whether a complete trial's training ended there, so that it is not shown as a rung."""
    return bool(ends) and (rung.stage, rung.step) == max(ends.items())


def _ends(points: Points) -> dict[int, int]:
    """Return the last step of each stage."""
    return {stage: step for stage, step, _ in points}
