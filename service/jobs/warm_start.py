"""Warm start: what past jobs on similar data found, for the search of a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from luthier.dataset import Profile
from luthier.errors import NotFound
from luthier.models.base_model import BaseModelEntry
from luthier.store import Connection, files, jobs, models, trials
from luthier.store.rows import JobRecord
from search.policy.warm_start import JobContext, SimilarJob, similar_job, similarity_of
from service.jobs import history

MOST: Final = 5  # similar jobs used; more add little
LATEST: Final = 50  # jobs considered


def similar_jobs(c: Connection, job: JobRecord) -> tuple[SimilarJob, ...]:
    """Return the most similar past jobs, the most similar first; jobs of the same schedule come before all others.

    Only jobs that had ended when this one was created count, so that proposals do not depend on when they are made.
    """
    if not job.search.memory:
        return ()
    entries = {entry.name: entry for entry in models.list_(c)}
    own = jobs.ended_before(c, job.created_at, MOST, schedule_id=job.schedule_id) if job.schedule_id else []
    own_ids = {other.id for other in own}
    others = {other.id: other for other in (*own, *jobs.ended_before(c, job.created_at, LATEST))}
    described = _job_context(c, job, entries)
    if described is None:
        return ()
    similar = [
        (similarity, other)
        for other in others.values()
        if other.judge.family == job.judge.family
        if (theirs := _job_context(c, other, entries)) is not None
        if (similarity := similarity_of(described, theirs)) > 0
    ]
    first = sorted(similar, key=lambda pair: (pair[1].id not in own_ids, -pair[0], pair[1].id))[:MOST]
    hidden_sizes = {name: entry.facts.hidden_size for name, entry in entries.items()}
    return tuple(
        similar_job(
            history.past(other, trials.of_job(c, other.id)),
            hidden_sizes,
            similarity,
            any_length=job.search.pin.epochs is None,
        )
        for similarity, other in first
    )


def _job_context(c: Connection, job: JobRecord, entries: Mapping[str, BaseModelEntry]) -> JobContext | None:
    """Return what the job was about; None where its file or its base model was deleted."""
    base = entries.get((job.search.pin.model or ("",))[0])
    try:
        profile = Profile.model_validate(files.get(c, job.training_file).profile)
    except NotFound:
        return None
    if base is None:
        return None
    return JobContext(
        kind=job.judge.kind,
        objective=job.judge.objective,
        tokens=profile.tokens,
        base=base.name,
        parameters=base.facts.parameters,
    )
