"""Names for the best model so far, which schedules keep and people may set."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path

from luthier.api_types import Alias, AliasVersion, Deleted, Page
from luthier.errors import NotFound
from luthier.store import Connection, aliases, jobs
from luthier.store.rows import AliasRecord
from service.context import Ctx, utc_now
from service.schemas.requests import SetAlias

router = APIRouter(prefix="/v1/aliases", tags=["Aliases"])

Name = Annotated[str, Path(description="name of an alias, without `alias/`", examples=["support"])]


@router.get("", summary="List the aliases")
def list_aliases(ctx: Ctx) -> Page[Alias]:
    """By name, each with all that it has stood for."""
    with ctx.database.read() as c:
        return Page(data=tuple(_view(c, record.name) for record in aliases.list_(c)))


@router.post("", summary="Set an alias")
def set_alias(ctx: Ctx, body: SetAlias) -> Alias:
    """Let `alias/NAME` stand for a fine-tuned model, whatever it stood for before. A schedule that keeps the alias
    goes on from there: this is the champion that its next winner has to beat."""
    with ctx.database.begin() as c:
        job = jobs.by_model(c, body.model)
        if job is None:
            raise NotFound(f"there is no fine-tuned model {body.model!r}", param="model")
        aliases.point(c, body.name, job, "user", utc_now())
        return _view(c, body.name)


@router.get("/{name}", summary="Look at one alias")
def get_alias(ctx: Ctx, name: Name) -> Alias:
    with ctx.database.read() as c:
        return _view(c, name)


@router.post("/{name}/rollback", summary="Roll an alias back")
def roll_back(ctx: Ctx, name: Name) -> Alias:
    """Let it stand for what it stood for before; once more, for what it stood for before that. 409 where there is
    nothing before."""
    with ctx.database.begin() as c:
        aliases.roll_back(c, name, utc_now())
        return _view(c, name)


@router.delete("/{name}", summary="Delete an alias")
def delete_alias(ctx: Ctx, name: Name) -> Deleted:
    """With its history; the models stay."""
    with ctx.database.begin() as c:
        aliases.delete(c, name)
    return Deleted(id=f"{aliases.PREFIX}{name}", object="alias")


def _view(c: Connection, name: str) -> Alias:
    history = aliases.history(c, name)
    if not history:
        raise NotFound(f"there is no alias {name!r}", param="name")
    return Alias(
        id=f"{aliases.PREFIX}{name}",
        name=name,
        model=history[0].model,
        job=history[0].job_id,
        versions=tuple(map(_version, history)),
    )


def _version(record: AliasRecord) -> AliasVersion:
    return AliasVersion(
        version=record.version,
        model=record.model,
        job=record.job_id,
        origin=record.origin,
        contest=record.contest,
        created_at=_seconds(record.created_at),
    )


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
