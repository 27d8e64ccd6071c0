"""Base classes of Luthier's value objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of Luthier's value objects: immutable, closed to unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Member(Frozen, ABC):
    """Base of the members of an axis. The class says what a member is called, its hyperparameters and its paper; the
    first sentence of its docstring describes it in lists. Subclasses fix `kind`."""

    @classmethod
    def kind_name(cls) -> str:
        """The value of `kind`: what the member is called in designs, pins and tables."""
        name: str = cls.model_fields["kind"].default
        return name

    @abstractmethod
    def describe(self) -> str:
        """What this value does, with its hyperparameters, as half a sentence for the model card."""


def kinds(union: Any) -> tuple[str, ...]:
    """The names of the members of an axis, from its discriminated union: `kinds(Update)`."""
    return tuple(member.kind_name() for member in get_args(get_args(union)[0]))
