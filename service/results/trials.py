"""The trials of a job as the API and the dashboard show them."""

from __future__ import annotations

from luthier.api_types import DesignWords, Page, Trial, TrialDetails, TrialLine, TrialSample
from luthier.errors import NotFound
from luthier.store import Connection, artifacts, jobs, measurements, models, trials
from luthier.store.rows import TrialRecord
from search.policy.ranking import UNTUNED
from search.report import phrases
from service.jobs import history
from service.results import queries, serializers


def listing(c: Connection, job_id: str, after: str | None, limit: int) -> Page[Trial]:
    """Return a page of a job's trials, by number. Raises NotFound for an unknown job or `after`."""
    job = jobs.get(c, job_id)
    rows = trials.of_job(c, job_id)
    start = 0
    if after is not None:
        start = next((position for position, row in enumerate(rows, start=1) if row.id == after), 0)
        if start == 0:
            raise NotFound(f"Trial {after!r} was not found.", param="after")
    repeats, scores, seeds = history.repeats(rows), measurements.stage_scores(c, job_id), history.by_design(rows)
    shown = rows[start : start + limit]
    data = tuple(
        serializers.trial(job, row, repeats.get(row.number), scores.get(row.id), seeds.get(row.digest, ()))
        for row in shown
    )
    return Page(data=data, has_more=start + limit < len(rows))


def details(c: Connection, trial: TrialRecord) -> TrialDetails:
    """Return a trial with its design in words and the weights that are kept of it."""
    facts = {entry.name: entry.facts for entry in models.list_(c)}
    explained = phrases.explained(trial.design, facts.get(trial.design.architecture.base))
    return TrialDetails(
        **dict(queries.trial(c, trial)),
        stopped=trial.stopped,
        explained=tuple(DesignWords(axis=axis, words=words) for axis, words in explained),
        artifacts=tuple(artifacts.of_trial(c, trial.id)),
    )


def log(c: Connection, trial: TrialRecord, limit: int) -> Page[TrialLine]:
    """Return the last lines of a trial's log, oldest first."""
    found = measurements.lines_of(c, trial.id, limit + 1)
    lines = (TrialLine(lease=lease, at=int(line.at.timestamp()), text=line.text) for lease, line in found[-limit:])
    return Page(data=tuple(lines), has_more=len(found) > limit)


def samples(c: Connection, trial: TrialRecord) -> tuple[TrialSample, ...]:
    """Return a trial's answers to validation prompts, each beside the untuned base's answer to the same prompt."""
    base = next(row for row in trials.of_job(c, trial.job_id) if row.number == UNTUNED)
    base_answers = {sample.prompt: sample.answer for sample in measurements.samples_of(c, base.id)}
    return tuple(
        TrialSample(**dict(sample), base_answer=base_answers.get(sample.prompt))
        for sample in measurements.samples_of(c, trial.id)
    )
