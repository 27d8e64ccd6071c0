"""Environments: tasks that make their own rows, answer what the model says, and score how it went."""

from __future__ import annotations

from luthier.environments.environment import Environment, Episode

__all__ = ["Environment", "Episode"]
