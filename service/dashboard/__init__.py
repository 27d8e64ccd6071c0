"""The dashboard: HTML pages at the paths outside /v1, rendered from the store."""

from __future__ import annotations

from typing import Final

from service.dashboard import (
    access,
    assets,
    compare,
    datasets,
    exports,
    glossary,
    job,
    jobs,
    login,
    machines,
    new_job,
    schedules,
    trial,
)

ROUTERS: Final = (
    assets.router,
    jobs.router,
    compare.router,
    exports.router,
    job.router,
    trial.router,
    datasets.router,
    machines.router,
    new_job.router,
    login.router,
    schedules.router,
    access.router,
    glossary.router,
)
