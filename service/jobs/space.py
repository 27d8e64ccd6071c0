"""The design space of a job."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.dataset import Profile
from luthier.errors import LuthierError
from luthier.models.base_model import BaseModelEntry
from luthier.store import files, models
from luthier.store.rows import JobRecord
from luthier.task import Constraints, Pin
from search.space.space import Space
from service.context import Context


def space_of(ctx: Context, job: JobRecord) -> Space:
    """Return what the job searches. Raises UserError where one of its base models is no longer registered."""
    with ctx.database.read() as c:
        entries = models.list_(c)
    return _space(ctx, job, entries, job.search.pin, job.constraints)


def legal_space(ctx: Context, job: JobRecord, pin: Pin) -> Space:
    """Return all designs that are legal for the job's rows and base models under `pin`, whatever it searches itself."""
    with ctx.database.read() as c:
        entries = [entry for entry in models.list_(c) if entry.name in (job.search.pin.model or ())]
    return _space(ctx, job, entries, pin, Constraints())


def space_if_any(ctx: Context, job: JobRecord) -> Space | None:
    """Return what the job searches; None where its file was deleted or a base model is no longer registered."""
    try:
        return space_of(ctx, job)
    except LuthierError:
        return None


def _space(
    ctx: Context, job: JobRecord, entries: Sequence[BaseModelEntry], pin: Pin, constraints: Constraints
) -> Space:
    with ctx.database.read() as c:
        profile = Profile.model_validate(files.get(c, job.training_file).profile)
    return Space.for_job(
        job.judge.kind,
        profile.examples(ctx.count_rows(job.train)),
        entries,
        pin,
        constraints,
        length=profile.long_rows,
        rewarded=job.task.rewarded,
    )
