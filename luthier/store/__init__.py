"""The only package with SQL. Its functions run in the caller's transaction, a `Connection`."""

from sqlalchemy import Connection

__all__ = ["Connection"]
