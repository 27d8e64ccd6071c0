"""The dashboard: pages for people, rendered by the service from its own store, under the addresses outside /v1."""

from __future__ import annotations

from typing import Final

from service.dashboard import (
    access,
    assets,
    compare,
    datasets,
    exports,
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
)
