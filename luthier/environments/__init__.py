"""Environments: tasks that make their own rows, answer what the model says, and score how it went.

make(spec)                  the environment that a job names, with its options checked
Environment, Episode        what a package of one's own implements
"""

from __future__ import annotations

from luthier.environments.base import Environment, Episode
from luthier.environments.registry import make

__all__ = ["Environment", "Episode", "make"]
