"""The registry of base models, and the models that jobs created."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from sse_starlette import EventSourceResponse, ServerSentEvent

from luthier.api_types import Deleted, Model, Page
from luthier.errors import LuthierError
from luthier.models.confined import Step, silent
from service.context import Context, Ctx, utc_now
from service.jobs import model_registry
from service.results import queries
from service.schemas.params import ModelId
from service.schemas.requests import AddModel

router = APIRouter(prefix="/v1/models", tags=["Models"])
log = logging.getLogger(__name__)

PING_SECONDS: Final = 15
STREAM: Final = "text/event-stream"
STEPS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {STREAM: {}}, "description": f"The model; with the header `Accept: {STREAM}` after its steps"}
}
INTERNAL: Final = "Internal error. The log of the service has the details."


@router.get("", summary="List the models")
def list_models(ctx: Ctx) -> Page[Model]:
    """Base models with their facts, then the results of jobs, newest first, then the aliases."""
    with ctx.database.read() as c:
        return Page(data=queries.all_models(c))


@router.get("/{model_id:path}", summary="Get a model")
def get_model(ctx: Ctx, model_id: ModelId) -> Model:
    with ctx.database.read() as c:
        return queries.model(c, model_id)


@router.post("", summary="Register a base model", response_model=Model, responses=STEPS)
def add_model(
    ctx: Ctx,
    body: AddModel,
    accept: Annotated[str | None, Header(description=f"`{STREAM}`: the response is a stream of the steps")] = None,
) -> Model | EventSourceResponse:
    """Checks the folder and reads the facts from its files; the model is not loaded. For a new architecture, each
    weight update and edit is tried on a tiny model of it (`facts.unsupported`), which takes up to a minute. A GGUF file
    is converted first, and a hub model downloaded, into a folder of the service's home. The response waits for all of
    it. An existing name is replaced, unless an active job uses it. Registering the same model again changes nothing.

    With the header `Accept: text/event-stream`, the response is a stream of server-sent events: `{"step": …}` for each
    file that is checked and each update that is tried, then `{"model": …}` or `{"error": …}`.
    """
    if accept is not None and STREAM in accept:
        return EventSourceResponse(_steps(ctx, body), ping=PING_SECONDS)
    return _added(ctx, body, silent)


def _added(ctx: Context, body: AddModel, step: Step) -> Model:
    model_registry.add(ctx, body, utc_now(), step)
    with ctx.database.read() as c:
        return queries.model(c, body.name)


def _steps(ctx: Context, body: AddModel) -> Iterator[ServerSentEvent]:
    """Register the model in a thread, and yield its steps, then the model or the error.

    The thread goes on where nobody reads the steps any more.
    """
    said: SimpleQueue[tuple[str, Any]] = SimpleQueue()

    def register() -> None:
        try:
            model = _added(ctx, body, lambda step: said.put(("step", step)))
            said.put(("model", model.model_dump(mode="json")))
        except LuthierError as error:
            said.put(("error", error.body()["error"]))
        except Exception:
            log.exception("registering %s failed", body.name)
            said.put(("error", LuthierError(INTERNAL).body()["error"]))

    Thread(target=register, name=f"registering {body.name}", daemon=True).start()
    kind = "step"
    while kind == "step":
        kind, value = said.get()
        yield ServerSentEvent(event=kind, data=json.dumps({kind: value}))


@router.delete("/{model_id}", summary="Delete a model")
def delete_model(ctx: Ctx, model_id: ModelId) -> Deleted:
    """Removes a base model from the registry and keeps its folder; 409 while an active job uses it. Deletes the weights
    of a job's result and keeps the job, its trials and its report."""
    model_registry.delete(ctx, model_id, utc_now())
    return Deleted(id=model_id, object="model")
