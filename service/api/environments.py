"""Environments: what a job can name in place of a file."""

from __future__ import annotations

from fastapi import APIRouter

from luthier.api_types import Environment, Page
from service.datasets import environments

router = APIRouter(tags=["Environments"])


@router.get("/v1/environments", summary="List the environments")
def list_environments() -> Page[Environment]:
    """What `task.environment` of a job may name, with the JSON schema of each option. Packages that are installed
    beside Luthier add theirs through the entry point group `luthier.environments`.
    """
    return Page(data=environments.listing())
