"""The control plane: one FastAPI application over the store, the blobs and the background loops."""

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
from service.http.request_log import RequestLog
from service.integrations.prometheus import Metrics
from service.integrations.publisher import Publisher, trackers
from service.integrations.webhooks import Outbox
from service.jobs import reconcile
from service.schedules import run

DESCRIPTION: Final = """
Luthier designs the fine-tuning of language models: upload a dataset, and it searches for the best design, trains it
and reports the evidence.

Files, jobs, events and models have OpenAI's format, so that the unmodified `openai` client works with them. Luthier's
own settings are extra fields (`task`, `search`, `constraints`; `luthier` in responses) and further resources. Every
error is `{"error": {"message", "type", "param", "code"}}`, with a message that says what to do.
"""

TAGS: Final = [
    {"name": "Files", "description": "Datasets: upload, profile and rows. Every row is checked."},
    {"name": "Fine-tuning jobs", "description": "Sweeps that search for the best design within a budget."},
    {"name": "Environments", "description": "Sources of rows and rewards, in place of a file and a grader."},
    {"name": "Graders", "description": "Try a grader on one answer before a job uses it."},
    {"name": "Results", "description": "Trials, curves, the best design and its weights."},
    {"name": "Designs", "description": "What a design would cost, without training it."},
    {"name": "Models", "description": "Base models, and the models that jobs created."},
    {"name": "Completions", "description": "Chat and text completions by base models and by the results of jobs."},
    {"name": "Schedules", "description": "Jobs that are created again and again, by a cron expression."},
    {"name": "Aliases", "description": "Names that point to a model, such as the best so far."},
    {"name": "Webhooks", "description": "Endpoints that receive signed events, with retries."},
    {"name": "Workers", "description": "The protocol between the service and its workers."},
    {"name": "Health", "description": "Liveness, readiness and metrics."},
    {"name": "Keys", "description": "API keys and their scopes."},
]

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {
        "model": ErrorBody,
        "description": "400: the request is invalid, and the message says where; 401: an API key is needed; 403: the "
        "key does not allow this; 404: not found; 409: the state of the resource does not allow this; 413: the body is "
        "larger than a limit; 429: too many requests, see Retry-After",
    },
    "5XX": {"model": ErrorBody, "description": "Internal error"},
}

# For the OpenAPI document; `service.http.auth_gate` enforces it.
BEARER: Final = HTTPBearer(auto_error=False, description="an API key (`luthier keys create`); needed once one exists")


def create_app(settings: Settings) -> FastAPI:
    """Return the application. It opens the store when it starts and closes it when it stops.

    An SQLite store is upgraded automatically; a PostgreSQL store is only checked (`luthier db upgrade`).
    """
    app = FastAPIOffline(  # its pages load nothing from other hosts
        title="Luthier",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        redoc_url=None,
        lifespan=_lifespan,
        responses=ERRORS,
        dependencies=[Security(BEARER)],
        swagger_ui_parameters={"validatorUrl": None, "docExpansion": "list"},
    )
    app.state.settings, app.state.metrics, app.state.trackers = settings, Metrics(), trackers(settings)
    app.state.worker_key = mint()  # for the workers that this process starts
    app.add_middleware(BodyLimit)
    app.add_middleware(Gate, settings=settings, worker_key=app.state.worker_key)  # before any body is read
    app.add_middleware(RequestLog, metrics=app.state.metrics)
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
        ticks = {"jobs": reconcile.tick, "schedules": run.tick, "webhooks": outbox.look}
        threads: list[Ticker | Publisher] = [Ticker(ctx, tick, name) for name, tick in ticks.items()]
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
