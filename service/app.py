"""The control plane: one FastAPI application over the store, the blobs and the loop that looks after jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any, Final

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from luthier.api_types import ErrorBody
from luthier.blobs import Blobs
from luthier.keys import mint, secret_of
from luthier.settings import Settings
from luthier.store.database import Database
from service.api import (
    aliases,
    blobs,
    charts,
    completions,
    designs,
    files,
    generations,
    graders,
    health,
    jobs,
    keys,
    models,
    proxy,
    reports,
    results,
    stream,
    trials,
    workers,
)
from service.api import schedules as schedule_routes
from service.api import webhooks as webhook_routes
from service.background import Ticker
from service.blob_gc import Garbage
from service.context import Context
from service.dashboard import ROUTERS
from service.http import error_handlers
from service.http.auth_gate import Gate
from service.http.body_limit import BodyLimit
from service.http.request_log import Observed
from service.integrations.prometheus import Metrics
from service.integrations.publisher import Publisher, wanted
from service.integrations.webhooks import Outbox
from service.jobs import reconcile
from service.schedules import run

DESCRIPTION: Final = """
Luthier designs fine-tunings of language models: give it a dataset, get the best design trained, with the evidence.

Files, jobs, events and models have OpenAI's shapes, so that the unmodified `openai` client drives them. What is
Luthier's own travels in extra fields (`task`, `search`, `constraints`; `luthier` in answers) and in resources of its
own. Every error is `{"error": {"message", "type", "param", "code"}}`, with a message that says what to do.
"""

TAGS: Final = [
    {"name": "Files", "description": "Datasets: uploaded, checked row by row, normalised, profiled."},
    {"name": "Fine-tuning jobs", "description": "Searches for the best design within a budget."},
    {"name": "Environments", "description": "What makes rows and rewards in place of a file and a grader."},
    {"name": "Graders", "description": "Graders tried on one answer, before a job uses them."},
    {"name": "Results", "description": "Trials, curves, the best design and its weights."},
    {"name": "Designs", "description": "What a design would take, with nothing trained."},
    {"name": "Models", "description": "Base models that designs start from, and models that jobs have made."},
    {"name": "Completions", "description": "Answers of base models and of what jobs have made."},
    {"name": "Schedules", "description": "Jobs that are created again and again, at the ticks of a cron expression."},
    {"name": "Aliases", "description": "Names for the best model so far."},
    {"name": "Webhooks", "description": "Where events are sent, signed, until they are received."},
    {"name": "Workers", "description": "The protocol between the service and its workers."},
    {"name": "Health", "description": "Liveness, readiness and metrics."},
    {"name": "Keys", "description": "Who may do what: API keys and their scopes."},
]

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {
        "model": ErrorBody,
        "description": "400: the request is wrong, and the message says where; 404: there is no such thing; "
        "409: the thing is not in a state that allows this; 413: the body is larger than a limit; "
        "401: a key is needed; 403: the key does not allow this; 429: too many requests, see Retry-After",
    },
    "5XX": {"model": ErrorBody, "description": "Something went wrong inside the service"},
}

# The description shows it; `service.http.auth_gate` enforces it.
BEARER: Final = HTTPBearer(auto_error=False, description="an API key: `luthier keys create`; needed once there is one")


def create_app(settings: Settings) -> FastAPI:
    """The application; it opens the store when it starts and closes it when it stops.

    An SQLite store is brought up to date by itself; a PostgreSQL store is only checked (`luthier db upgrade`).
    """
    app = FastAPIOffline(  # its pages load nothing from elsewhere
        title="Luthier",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        redoc_url=None,
        lifespan=_lifespan,
        responses=ERRORS,
        dependencies=[Security(BEARER)],
        swagger_ui_parameters={"validatorUrl": None, "docExpansion": "list"},
    )
    app.state.settings, app.state.metrics, app.state.trackers = settings, Metrics(), wanted(settings)
    app.state.worker_key = mint()  # of the workers that this process starts
    app.add_middleware(BodyLimit)
    app.add_middleware(Gate, settings=settings, worker_key=app.state.worker_key)  # before any body is read
    app.add_middleware(Observed, metrics=app.state.metrics)
    error_handlers.install(app)
    app.include_router(files.environments_router)
    for part in (files, jobs, graders, results, trials, reports, designs, models, workers, blobs, health):
        app.include_router(part.router)
    app.include_router(completions.router if settings.vllm_url is None else proxy.router)
    for part in (generations, schedule_routes, aliases, webhook_routes, charts, stream, keys):
        app.include_router(part.router)
    for router in ROUTERS:
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    settings.home_dir.mkdir(parents=True, exist_ok=True)
    with closing(Database(settings.database)) as database, closing(Outbox()) as outbox:
        if database.url.get_backend_name() == "sqlite":
            database.upgrade()
        else:
            database.check()
        ctx = Context(
            settings=settings,
            database=database,
            blobs=Blobs(settings.blobs),
            garbage=Garbage(),
            secret=secret_of(settings),
        )
        looks = {"jobs": reconcile.tick, "schedules": run.tick, "webhooks": outbox.look}
        threads: list[Ticker | Publisher] = [Ticker(ctx, look, name) for name, look in looks.items()]
        if app.state.trackers:
            threads.append(Publisher(ctx, app.state.trackers))
        app.state.context, app.state.loops = ctx, threads
        app.state.metrics.watch(ctx)
        for each in threads:
            each.start()
        try:
            yield
        finally:
            for each in reversed(threads):
                each.stop()
