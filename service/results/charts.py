"""What charts of a job are drawn from: curves that are laid end to end and thinned, and who trained what when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from luthier.api_types import Curves, RungMark, Span, Timeline, TrialCurve, WorkerSpans
from luthier.metrics import deciding
from luthier.store.rows import EventRecord, JobRecord, RungRecord, TrialMark
from search.policy.ranking import objective_value

Stretch = Sequence[tuple[int, int, float]]  # stage, step in the stage, value


def curves(
    job: JobRecord,
    trials: Sequence[TrialMark],
    name: str,
    names: Sequence[str],
    found: Mapping[str, Stretch],
    rungs: Sequence[RungRecord],
    limit: int,
) -> Curves:
    """`found` by trial; at most `limit` points of each are kept."""
    numbers = {trial.id: trial.number for trial in trials}
    ends = {trial_id: _ends(points) for trial_id, points in found.items()}
    sign = deciding(job.judge.objective).sign
    return Curves(
        name=name,
        names=tuple(names),
        trials=tuple(_curve(trial.number, found[trial.id], limit) for trial in trials if trial.id in found),
        rungs=tuple(
            RungMark(
                number=numbers[rung.trial_id],
                rung=rung.rung,
                step=rung.step + sum(ends.get(rung.trial_id, {}).get(stage, 0) for stage in range(rung.stage)),
                score=sign * objective_value(rung.metrics, job.judge.objective),
            )
            for rung in rungs
        ),
    )


def thin(values: Sequence[float], limit: int) -> list[int]:
    """The places of at most `limit` of the values: the first and the last one, and of each stretch between the lowest
    and the highest, so that the curve keeps its shape."""
    last = len(values) - 1
    if len(values) <= limit:
        return list(range(len(values)))
    pieces = max(1, (limit - 2) // 2)
    kept = [0]
    for start, end in pairwise(1 + (last - 1) * piece // pieces for piece in range(pieces + 1)):
        stretch = values[start:end]
        kept += sorted({start + stretch.index(min(stretch)), start + stretch.index(max(stretch))})
    return [*kept, last]


def timeline(events: Sequence[EventRecord]) -> Timeline:
    """From the events that tell of leases, oldest first."""
    spans: dict[str, list[Span]] = {}
    held: dict[tuple[int, int], str] = {}
    for event in events:
        data = event.data or {}
        if "lease" not in data:
            continue
        number, lease, at = data["number"], data["lease"], event.created_at.timestamp()
        if "worker" in data:
            held[number, lease] = data["worker"]
            begun = Span(number=number, lease=lease, start=at, end=None, outcome=None)
            spans.setdefault(data["worker"], []).append(begun)
        elif (worker := held.pop((number, lease), None)) is not None:
            ended = {"end": at, "outcome": data["state"]}
            spans[worker] = [
                span.model_copy(update=ended) if (span.number, span.lease) == (number, lease) else span
                for span in spans[worker]
            ]
    return Timeline(workers=tuple(WorkerSpans(worker=name, spans=tuple(spans[name])) for name in sorted(spans)))


def _curve(number: int, found: Stretch, limit: int) -> TrialCurve:
    ends = _ends(found)
    before = {stage: sum(ends[other] for other in ends if other < stage) for stage in ends}
    kept = [found[place] for place in thin([value for _, _, value in found], limit)]
    return TrialCurve(
        number=number,
        step=tuple(before[stage] + step for stage, step, _ in kept),
        value=tuple(float(f"{value:.6g}") for _, _, value in kept),
    )


def _ends(points: Stretch) -> dict[int, int]:
    """The last step of each stage."""
    return {stage: step for stage, step, _ in points}
