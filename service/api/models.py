"""The registry of base models, and the models that jobs created."""

from __future__ import annotations

from fastapi import APIRouter

from luthier.api_types import Deleted, Model, Page
from service.context import Ctx, utc_now
from service.jobs import model_registry
from service.results import queries
from service.schemas.params import ModelId
from service.schemas.requests import AddModel

router = APIRouter(prefix="/v1/models", tags=["Models"])


@router.get("", summary="List the models")
def list_models(ctx: Ctx) -> Page[Model]:
    """Base models with their facts, then the results of jobs, newest first, then the aliases."""
    with ctx.database.read() as c:
        return Page(data=queries.all_models(c))


@router.get("/{model_id:path}", summary="Get a model")
def get_model(ctx: Ctx, model_id: ModelId) -> Model:
    with ctx.database.read() as c:
        return queries.model(c, model_id)


@router.post("", summary="Register a base model")
def add_model(ctx: Ctx, body: AddModel) -> Model:
    """Checks the folder and reads the facts from its files; the model is not loaded. For a new architecture, each
    weight update and edit is tried on a tiny model of it (`facts.unsupported`), which takes up to a minute. A GGUF file
    is converted first, and a hub model downloaded, into a folder of the service's home. The response waits for all of
    it. An existing name is replaced, unless an active job uses it. Registering the same model again changes nothing.
    """
    model_registry.add(ctx, body, utc_now())
    with ctx.database.read() as c:
        return queries.model(c, body.name)


@router.delete("/{model_id}", summary="Delete a model")
def delete_model(ctx: Ctx, model_id: ModelId) -> Deleted:
    """Removes a base model from the registry and keeps its folder; 409 while an active job uses it. Deletes the weights
    of a job's result and keeps the job, its trials and its report."""
    model_registry.delete(ctx, model_id, utc_now())
    return Deleted(id=model_id, object="model")
