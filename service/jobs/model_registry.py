"""Registration and deletion of models, and setting aliases."""

from __future__ import annotations

import logging
from datetime import datetime

from luthier.errors import Conflict, NotFound
from luthier.models.base_model import BaseModelEntry
from luthier.models.confined import Step, silent
from luthier.models.sources import facts_of, local_folder
from luthier.store import Connection, aliases, artifacts, jobs, models, trials
from luthier.store.rows import JobRecord
from service.context import Context
from service.jobs import events
from service.jobs.lifecycle import drop_checkpoints
from service.schemas.requests import AddModel

log = logging.getLogger(__name__)


def add(ctx: Context, body: AddModel, now: datetime, step: Step = silent) -> None:
    """Register a base model; fetch or convert it first where its source is no folder. Raises UserError, and Conflict
    where the name is used by an active job. Registering the same model again changes nothing.

    `step` is called with each step, which is also logged.
    """

    def begin(name: str) -> None:
        log.info("registering %s: %s", body.name, name)
        step(name)

    home = ctx.settings.home_dir
    folder = local_folder(body.source, home, begin)
    entry = BaseModelEntry(name=body.name, source=str(folder), facts=facts_of(folder, home, begin))
    with ctx.database.begin() as c:
        if entry not in models.list_(c):
            _refuse_while_used(c, body.name)
            models.add(c, entry, now)


def delete(ctx: Context, name: str, now: datetime) -> None:
    """Remove a base model from the registry, or delete the weights of a job's result.

    Raises NotFound, and Conflict while an active job uses the base model, or an alias points to the result.
    """
    with ctx.database.begin() as c:
        job = jobs.by_model(c, name)
        if job is not None:
            _delete_result(ctx, c, job, now)
        else:
            _refuse_while_used(c, name)
            models.remove(c, name)


def set_alias(c: Connection, name: str, model: str, now: datetime) -> None:
    """Point an alias to a fine-tuned model. Raises NotFound."""
    job = jobs.by_model(c, model)
    if job is None:
        raise NotFound(f"Fine-tuned model {model!r} was not found.", param="model")
    aliases.point(c, name, job, "user", now)


def _delete_result(ctx: Context, c: Connection, job: JobRecord, now: datetime) -> None:
    assert job.best_trial_id is not None, "a named model is a trial's"
    pointing = [record.name for record in aliases.list_(c) if record.trial_id == job.best_trial_id]
    if pointing:
        raise Conflict(
            f"alias/{pointing[0]} points to {job.fine_tuned_model}. Roll back, set or delete the alias first."
        )
    jobs.set_result(c, job.id, job.best_trial_id, None, job.trained_tokens)
    ctx.garbage.release(artifacts.drop(c, job.best_trial_id))
    ctx.garbage.release_at_once(drop_checkpoints(c, trials.of_job(c, job.id)))  # it can no longer be extended
    events.deleted(c, job, now)


def _refuse_while_used(c: Connection, name: str) -> None:
    for job in jobs.active(c):
        if name in (job.search.pin.model or ()):
            raise Conflict(f"Base model {name} is used by job {job.id}, which has not ended. Cancel the job first.")
