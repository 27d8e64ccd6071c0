"""RL environments: tasks that make their own rows, reply to the model, and return a reward.

make(spec)                  the environment of a job, with its options validated
Environment, Episode        the protocols that your own package implements
"""

from __future__ import annotations

from luthier.environments.base import Environment, Episode
from luthier.environments.registry import make

__all__ = ["Environment", "Episode", "make"]
