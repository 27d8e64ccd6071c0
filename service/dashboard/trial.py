"""The page of one trial, and the form that adds a design."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from luthier.design import Design
from luthier.errors import NotFound
from luthier.metrics import MetricSpec, curves_for_charts, deciding, mean_metrics, named, shown
from luthier.store import jobs, measurements, models, trials, workers
from luthier.store.rows import JobRecord, TrialRecord
from luthier.task import pin_name
from luthier.trial import JobState, StageEnd, rung_name, rungs_reached
from luthier.values import Frozen
from search.methods import EDITS, UPDATE_OF
from search.policy.ranking import UNTUNED, rank
from search.space.axes import PLACED
from search.space.samplers import Value
from service.context import Ctx
from service.dashboard.exports import table_file
from service.dashboard.layout import page
from service.jobs import budget, history, outcome
from service.results import queries
from service.results import trials as views
from service.schemas.params import JobId, TrialId

router = APIRouter(include_in_schema=False)

LINES: Final = 200
MOST_LINES: Final = 10_000
ENDS: Final[dict[StageEnd | None, str]] = {
    None: "trained to its last step",  # an earlier version did not record why
    "limit": "trained to the limit of its length",
    "best_long_past": "ended, as its best moment was long past",
    "budget": "cut when the job’s budget ended",
    "user": "stopped by a user",
}
ORIGINS: Final = {
    "baseline": "baseline",
    "prior": "prior: known to work for such data",
    "memory": "warm start from a similar job",
    "proposed": "proposed by the search",
    "confirmation": "repeat with another seed",
    "user": "added manually",
}


class Score(Frozen):
    """A trial's score next to the untuned base's, and the mean over the seeds of its design."""

    name: str
    value: float | None
    mean: float | None
    seeds: int
    base: float | None
    lower_is_better: bool

    @property
    def change(self) -> float | None:
        return None if not self.base or self.value is None else self.value / self.base - 1

    @property
    def better(self) -> bool:
        return self.change is not None and (self.change < 0) == self.lower_is_better


@router.get("/jobs/{job_id}/trials/{trial_id}")
def show_trial(request: Request, ctx: Ctx, job_id: JobId, trial_id: TrialId) -> Response:
    with ctx.database.read() as c:
        trial = trials.named(c, job_id, trial_id)
        job, rows = jobs.get(c, job_id), trials.of_job(c, job_id)
        own_rows = job.rows_of(trial)
        detailed = views.details(c, trial)
        names = {worker.id: worker.name for worker in workers.list_(c)}
        log = measurements.lines_of(c, trial.id, LINES)
        samples = views.samples(c, trial)
        data = queries.data_name(c, job)
        best, recommendation = outcome.decide(c, ctx, job, rows)
    base = next(row for row in rows if row.number == UNTUNED)
    metric = deciding(job.judge.objective)
    return page(
        request,
        "trial.html.jinja",
        title=f"Trial {trial.number}",
        job=job,
        data=data,
        trial=detailed,
        rungs=_rungs(trial, metric),
        best_steps=[one.steps if one.steps < one.trained else None for one in trial.lengths or ()],
        scores=_scores(job, trial, base, history.by_design(rows).get(trial.digest, [])),
        best=best is not None and best.id == trial.id,
        recommended=recommendation.number is not None or job.best_trial_id is not None,
        ends=ENDS,
        unit=metric.label_of(trial.metrics, base.metrics),
        others=[spec for spec in shown("trial", trial.metrics) if spec is not metric],
        curves=curves_for_charts(),
        origin=ORIGINS[detailed.origin],
        worker=names.get(trial.owner or ""),
        log=log,
        samples=samples,
        design=trial.design.model_dump_json(indent=2),
        splits=1 + len(job.resplits),
        train_rows=ctx.count_rows(own_rows.train),
        validation_rows=ctx.count_rows(own_rows.validation),
        previous=_numbered(rows, trial.number - 1),
        following=_numbered(rows, trial.number + 1),
        takes_designs=job.state is JobState.RUNNING and len(budget.designs(rows)) < job.search.trials,
    )


@router.get("/jobs/{job_id}/design")
def design_form(request: Request, ctx: Ctx, job_id: JobId, trial: Annotated[str | None, Query()] = None) -> Response:
    """Show the form that adds a design, filled in from a trial. Raises NotFound before any design was trained."""
    with ctx.database.read() as c:
        job, rows = jobs.get(c, job_id), trials.of_job(c, job_id)
        ranked = rank(history.past(job, rows))
        best = ranked[0].number if ranked else UNTUNED
        start = trials.named(c, job_id, trial) if trial is not None else _numbered(rows, best)
        trained = [row for row in rows if row.design.stages]
        if start is None or not start.design.stages:
            start = trained[0] if trained else None
        if start is None:
            raise NotFound(f"Job {job_id} has no trained design yet to start from.", param="trial")
        entries = [entry.name for entry in models.list_(c) if entry.name in (job.search.pin.model or ())]
        data = queries.data_name(c, job)
    return page(
        request,
        "design.html.jinja",
        title="Add a design",
        job=job,
        data=data,
        start=start,
        values=values_of(start.design),
        ranked=[kind for kind, spec in UPDATE_OF.items() if spec.size is not None and spec.size.field == "rank"],
        placed=list(PLACED),
        models=entries,
        open=job.state is JobState.RUNNING and len(budget.designs(rows)) < job.search.trials,
        left=job.search.trials - len(budget.designs(rows)),
    )


@router.get("/jobs/{job_id}/trials/{trial_id}/{table}.{form}")
def export_trial(ctx: Ctx, job_id: JobId, trial_id: TrialId, table: str, form: str) -> Response:
    with ctx.database.read() as c:
        trial = trials.named(c, job_id, trial_id)
        found: Sequence[BaseModel]
        match table:
            case "points":
                found = measurements.of_trial(c, trial.id)
            case "samples":
                found = views.samples(c, trial)
            case "log":
                found = views.log(c, trial, MOST_LINES).data
            case _:
                raise NotFound(f"Table {table!r} was not found; the tables are points, samples and log", param="table")
    lines = [one.model_dump(mode="json") for one in found]
    return table_file(lines, f"{job_id}-trial-{trial.number}-{table}", form)


def _scores(job: JobRecord, trial: TrialRecord, base: TrialRecord, seeds: Sequence[TrialRecord]) -> list[Score]:
    """Return the scores on the validation rows and the test rows. `seeds`: the complete trials of its design."""
    metric = deciding(job.judge.objective)
    on_first = base.metrics if job.split_of(trial) == 0 else None  # the base is scored on the first split only
    pairs = [
        ("validation", trial.metrics, on_first, [one.metrics for one in seeds]),
        ("test", trial.test_metrics, base.test_metrics, [one.test_metrics for one in seeds]),
    ]
    scores = []
    for name, mine, other, all_seeds in pairs:
        scored = [one for one in all_seeds if one is not None]
        scores.append(
            Score(
                name=name,
                value=metric.value(mine),
                mean=metric.value(mean_metrics(scored)) if len(scored) > 1 else None,
                seeds=len(scored),
                base=None if trial.id == base.id else metric.value(other),
                lower_is_better=metric.lower_is_better,
            )
        )
    return scores


def _rungs(trial: TrialRecord, metric: MetricSpec) -> list[tuple[str, float | None, float | None]]:
    """Return the name of each rung that the trial reached, its score there, and the margin that ranked it."""
    margin = named("margin")
    return [
        (
            rung_name(trial.design, rung),
            metric.value(found),
            margin.value(found) if metric.objective == "reward" else None,
        )
        for rung, found in enumerate(rungs_reached(trial.design, trial.state, trial.measured))
    ]


def _numbered(rows: Sequence[TrialRecord], number: int) -> TrialRecord | None:
    return next((row for row in rows if row.number == number), None)


def values_of(design: Design) -> dict[str, Value]:
    """Return a design as fields of the form, named as in `change` and in `search.pin`."""
    first, architecture = design.stages[0], design.architecture
    found: dict[str, Value | None] = {
        "model": architecture.base,
        "algorithm": design.recipe,
        "update": first.update.kind,
        "rank": getattr(first.update, "rank", None),
        "placement": getattr(first.update, "placement", None),
        "epochs": first.optimiser.epochs,
        "schedule": first.optimiser.schedule,
        "batch_size": first.optimiser.batch_size,
        "learning_rate": first.optimiser.learning_rate,
        **{spec.edit: getattr(architecture, spec.edit) for spec in EDITS},
    }
    for stage in design.stages:
        found |= {pin_name(stage.algorithm.kind, name): value for name, value in stage.algorithm if name != "kind"}
    return {name: value for name, value in found.items() if value is not None}
