"""The only package with SQL. The caller of a function opens the transaction and passes its `Connection`."""

from sqlalchemy import Connection

__all__ = ["Connection"]
