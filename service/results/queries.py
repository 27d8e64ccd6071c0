"""Jobs, workers, models and aliases as the API and the dashboard show them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from luthier import api_types as api
from luthier.errors import NotFound
from luthier.store import Connection, aliases, files, jobs, measurements, models, trials, workers
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState
from service.context import Context, utc_now
from service.jobs import costs, history, outcome
from service.results import serializers

PAGE: Final = 1000  # jobs read at once


def job(c: Connection, record: JobRecord, ctx: Context | None = None) -> api.Job:
    """Return a job. With `ctx`, the finish of a running job is estimated from costs, which takes longer."""
    rows, now = trials.of_job(c, record.id), utc_now()
    work_left = None
    if ctx is not None and record.state is JobState.RUNNING:
        work_left = costs.work_left(ctx, c, record, rows, now)
    return serializers.job(record, rows, now, outcome.standing(c, record, rows), work_left)


def data_name(c: Connection, record: JobRecord) -> str:
    """Return what the job is trained on: its environment, or its file's name; the file's id if it was deleted."""
    if record.task.environment is not None:
        return record.task.environment.name
    try:
        return files.get(c, record.training_file).filename
    except NotFound:
        return record.training_file


def trial(c: Connection, record: TrialRecord) -> api.Trial:
    """Return a trial, with the number of the trial that it repeats and its scores after each stage."""
    rows = trials.of_job(c, record.job_id)
    repeated = history.repeats(rows).get(record.number)
    scores = measurements.stage_scores(c, record.job_id).get(record.id)
    seeds = history.by_design(rows).get(record.digest, ())
    return serializers.trial(jobs.get(c, record.job_id), record, repeated, scores, seeds)


def all_workers(ctx: Context, c: Connection, now: datetime) -> tuple[api.Worker, ...]:
    """Return all workers that ever registered, by name."""
    live = {worker.id for worker in workers.live(c, now, ctx.settings.lease_seconds)}
    return tuple(serializers.worker(worker, live=worker.id in live) for worker in workers.list_(c))


def base_models(c: Connection) -> list[api.Model]:
    return [serializers.base_model(entry, models.added_at(c, entry.name)) for entry in models.list_(c)]


def all_models(c: Connection) -> tuple[api.Model, ...]:
    """Return the base models, then the results of jobs, newest first, then the aliases."""
    tuned: list[api.Model] = []
    after, more = None, True
    while more:
        page, more = jobs.list_(c, after, PAGE, {})
        tuned += [serializers.fine_tuned_model(job) for job in page if job.fine_tuned_model is not None]
        after = page[-1].id if page else None
    return (*base_models(c), *tuned, *map(serializers.alias_model, aliases.list_(c)))


def model(c: Connection, name: str) -> api.Model:
    """Return a base model, the result of a job or an alias. Raises NotFound."""
    if name.startswith(aliases.PREFIX):
        return serializers.alias_model(aliases.get(c, name.removeprefix(aliases.PREFIX)))
    job = jobs.by_model(c, name)
    if job is not None:
        return serializers.fine_tuned_model(job)
    return serializers.base_model(models.get(c, name), models.added_at(c, name))


def alias(c: Connection, name: str) -> api.Alias:
    """Return an alias with all its versions. Raises NotFound."""
    history = aliases.history(c, name)
    if not history:
        raise NotFound(f"Alias {name!r} was not found.", param="name")
    return serializers.alias(history)


def all_aliases(c: Connection) -> tuple[api.Alias, ...]:
    """Return the aliases by name, each with all its versions."""
    return tuple(alias(c, record.name) for record in aliases.list_(c))
