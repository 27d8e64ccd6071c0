"""The registry of base models, and the models that jobs have made."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from luthier.api_types import Deleted, Model, Page
from luthier.errors import Conflict
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.models.sources import local_folder
from luthier.store import Connection, aliases, artifacts, jobs, models
from luthier.store.rows import AliasRecord, JobRecord
from luthier.trial import JobState
from service.context import Context, Ctx, utc_now
from service.jobs import events
from service.results import serializers
from service.schemas.requests import AddModel

router = APIRouter(prefix="/v1/models", tags=["Models"])

ModelId = Annotated[str, Path(description="name of a base model or of a fine-tuned one", examples=["tiny-chat"])]

PAGE = 1000


@router.get("", summary="List the models")
def list_models(ctx: Ctx) -> Page[Model]:
    """Base models with their facts first, then the models that jobs have made, newest first, then the aliases."""
    with ctx.database.read() as c:
        base = [serializers.base_model(entry, models.added_at(c, entry.name)) for entry in models.list_(c)]
        tuned = [serializers.fine_tuned_model(job) for job in _finished(c) if job.fine_tuned_model is not None]
        named = [_alias(record) for record in aliases.list_(c)]
    return Page(data=(*base, *tuned, *named))


@router.get("/{model_id:path}", summary="Look at one model")
def get_model(ctx: Ctx, model_id: ModelId) -> Model:
    with ctx.database.read() as c:
        if model_id.startswith(aliases.PREFIX):
            return _alias(aliases.get(c, model_id.removeprefix(aliases.PREFIX)))
        job = jobs.by_model(c, model_id)
        if job is not None:
            return serializers.fine_tuned_model(job)
        return serializers.base_model(models.get(c, model_id), models.added_at(c, model_id))


@router.post("", summary="Register a base model")
def add_model(ctx: Ctx, body: AddModel) -> Model:
    """Reads the facts from the folder's files, without loading the model. A GGUF file is converted first, and a hub id
    downloaded, into a folder of the service's home; the answer waits for it. A name that is taken is replaced, unless
    a job that has not ended uses it; what is registered already stays as it is.
    """
    folder = local_folder(body.source, ctx.settings.home_dir)
    entry = BaseModelEntry(name=body.name, source=str(folder), facts=read_facts(folder))
    now = utc_now()
    with ctx.database.begin() as c:
        if entry in models.list_(c):
            return serializers.base_model(entry, models.added_at(c, entry.name))
        _refuse_while_used(c, body.name)
        models.add(c, entry, now)
    return serializers.base_model(entry, now)


@router.delete("/{model_id}", summary="Forget a model")
def delete_model(ctx: Ctx, model_id: ModelId) -> Deleted:
    """Of a base model the folder stays as it is; 409 while a job that has not ended uses it. With the result of a job
    its weights are deleted; the job, its trials and its report stay."""
    with ctx.database.begin() as c:
        job = jobs.by_model(c, model_id)
        if job is None:
            _refuse_while_used(c, model_id)
            models.remove(c, model_id)
        else:
            _delete_result(ctx, c, job)
    return Deleted(id=model_id, object="model")


def _delete_result(ctx: Context, c: Connection, job: JobRecord) -> None:
    assert job.best_trial_id is not None, "what has a name is a trial's"
    standing = [record.name for record in aliases.list_(c) if record.trial_id == job.best_trial_id]
    if standing:
        raise Conflict(
            f"alias/{standing[0]} stands for {job.fine_tuned_model}: roll it back, set it otherwise or delete it first"
        )
    jobs.set_result(c, job.id, job.best_trial_id, None, job.trained_tokens)
    ctx.garbage.condemn(artifacts.drop(c, job.best_trial_id))
    events.deleted(c, job, utc_now())


def _alias(record: AliasRecord) -> Model:
    return Model(id=f"{aliases.PREFIX}{record.name}", created=int(record.created_at.timestamp()), job=record.job_id)


def _finished(c: Connection) -> list[JobRecord]:
    found: list[JobRecord] = []
    after, more = None, True
    while more:
        page, more = jobs.list_(c, after, PAGE, {})
        found += [job for job in page if job.state is JobState.SUCCEEDED]
        after = page[-1].id if page else None
    return found


def _refuse_while_used(c: Connection, name: str) -> None:
    for job in jobs.active(c):
        if name in (job.search.pin.model or ()):
            raise Conflict(f"base model {name} is used by job {job.id}, which has not ended: cancel the job first")
