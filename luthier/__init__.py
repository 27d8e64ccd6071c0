"""Luthier designs fine-tunings of language models. `from luthier import Client` is the Python client of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """Import the client on first use: most modules of `luthier` do not need it."""
    if name == "Client":
        from luthier.client import Client

        return Client
    raise AttributeError(f"module 'luthier' has no attribute {name!r}")
