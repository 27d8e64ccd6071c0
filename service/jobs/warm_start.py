"""What this installation learnt from past jobs, as far as it bears on the job at hand."""

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

MOST: Final = 5  # the jobs that are most alike; more would say the same again
LOOKED_AT: Final = 50  # the latest jobs


def similar_jobs(c: Connection, job: JobRecord) -> tuple[SimilarJob, ...]:
    """The past jobs that are most like this one, the likest first; before all others those of its own schedule.

    Only those that had ended when this one was created: what is proposed does not depend on when that is asked.
    """
    if not job.search.memory:
        return ()
    entries = {entry.name: entry for entry in models.list_(c)}
    ctx = _job_context(c, job, entries)
    own = jobs.ended_before(c, job.created_at, MOST, schedule_id=job.schedule_id) if job.schedule_id else []
    others = {other.id: other for other in (*own, *jobs.ended_before(c, job.created_at, LOOKED_AT))}
    past = [other for other in others.values() if other.judge.family == job.judge.family]
    if ctx is None:
        return ()
    like = [
        (similarity_of(ctx, there), other) for other in past if (there := _job_context(c, other, entries)) is not None
    ]
    ours = {other.id for other in own}
    telling = [(alike, other) for alike, other in like if alike > 0]
    likest = sorted(telling, key=lambda pair: (pair[1].id not in ours, -pair[0], pair[1].id))[:MOST]
    hidden_sizes = {name: entry.facts.hidden_size for name, entry in entries.items()}
    return tuple(
        similar_job(history.past(other, trials.of_job(c, other.id)), hidden_sizes, alike) for alike, other in likest
    )


def _job_context(c: Connection, job: JobRecord, entries: Mapping[str, BaseModelEntry]) -> JobContext | None:
    """None where the file or the base model has been deleted since."""
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
