"""The dashboard: pages for people, rendered by the service from its own store, under the addresses outside /v1."""

from __future__ import annotations

from typing import Final

from service.dashboard import assets, jobs, login

ROUTERS: Final = (assets.router, jobs.router, login.router)
