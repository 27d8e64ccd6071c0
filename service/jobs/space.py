"""The design space of a job."""

from __future__ import annotations

from luthier.dataset import Profile
from luthier.errors import LuthierError
from luthier.store import files, models
from luthier.store.rows import JobRecord
from search.space.space import Space, space
from service.context import Context


def space_of(ctx: Context, job: JobRecord) -> Space:
    """What the job searches. Raises UserError where a base model is no longer registered."""
    with ctx.database.read() as c:
        entries = models.list_(c)
        profile = Profile.model_validate(files.get(c, job.training_file).profile)
    rows = ctx.count_rows(job.train)
    return space(
        job.judge.kind,
        rows,
        entries,
        job.search.pin,
        job.constraints,
        length=profile.long_rows,
        rewarded=job.task.rewarded,
    )


def space_if_any(ctx: Context, job: JobRecord) -> Space | None:
    """None where it cannot be made again: its file was deleted, or a base model is no longer registered."""
    try:
        return space_of(ctx, job)
    except LuthierError:
        return None
