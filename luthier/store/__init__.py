"""The one room with SQL. Whoever calls its functions holds the transaction: `Connection` is the type of that."""

from sqlalchemy import Connection

__all__ = ["Connection"]
