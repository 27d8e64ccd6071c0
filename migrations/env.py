"""Alembic's entry point: runs the migrations on the caller's connection, in its transaction."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Enum, TypeDecorator

from luthier.store.tables import metadata


def plain_type(kind: str, item: object, autogen: AutogenContext) -> str | Literal[False]:
    """Write the database's own type into a new migration: the types in the code will change."""
    match item:
        case Enum(length=length):
            return f"sa.String({length})"
        case TypeDecorator(impl_instance=impl):
            return f"sa.{impl!r}"
        case _:
            return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=plain_type,
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
