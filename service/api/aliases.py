"""Aliases: names for models, which schedules and users set."""

from __future__ import annotations

from fastapi import APIRouter

from luthier.api_types import Alias, Deleted, Page
from luthier.store import aliases
from service.context import Ctx, utc_now
from service.jobs import model_registry
from service.results import queries
from service.schemas.params import AliasName
from service.schemas.requests import SetAlias

router = APIRouter(prefix="/v1/aliases", tags=["Aliases"])


@router.get("", summary="List the aliases")
def list_aliases(ctx: Ctx) -> Page[Alias]:
    """By name, each with all its versions."""
    with ctx.database.read() as c:
        return Page(data=queries.all_aliases(c))


@router.post("", summary="Set an alias")
def set_alias(ctx: Ctx, body: SetAlias) -> Alias:
    """Points `alias/NAME` to a fine-tuned model. If a schedule updates this alias, its next winner has to beat this
    model."""
    with ctx.database.begin() as c:
        model_registry.set_alias(c, body.name, body.model, utc_now())
        return queries.alias(c, body.name)


@router.get("/{name}", summary="Get an alias")
def get_alias(ctx: Ctx, name: AliasName) -> Alias:
    with ctx.database.read() as c:
        return queries.alias(c, name)


@router.post("/{name}/rollback", summary="Roll back an alias")
def roll_back(ctx: Ctx, name: AliasName) -> Alias:
    """Points the alias to the model before the current one. A second rollback goes one version further back. 409 if
    there is no earlier version."""
    with ctx.database.begin() as c:
        aliases.roll_back(c, name, utc_now())
        return queries.alias(c, name)


@router.delete("/{name}", summary="Delete an alias")
def delete_alias(ctx: Ctx, name: AliasName) -> Deleted:
    """Deletes the alias and its versions. The models are kept."""
    with ctx.database.begin() as c:
        aliases.delete(c, name)
    return Deleted(id=f"{aliases.PREFIX}{name}", object="alias")
