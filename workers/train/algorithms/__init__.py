"""Axis two, the learning algorithm: one objective for each member of `luthier.algorithms.Algorithm`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from luthier.algorithms import Algorithm
from workers.train.algorithms.base import IMPLEMENTATIONS, Context, Example, Loss, Objective, Teacher

for _module in pkgutil.iter_modules(__path__):  # each registers its objectives
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Context", "Example", "Loss", "Objective", "Teacher", "objective", "trainer"]


def objective(algorithm: Algorithm, context: Context | None = None) -> Objective:
    """Return the objective of an algorithm. Without the rewards or the teacher that it needs in `context`, it can make
    examples but no batches."""
    return IMPLEMENTATIONS[algorithm.kind].objective(algorithm, context or Context())


def trainer(algorithm: Algorithm) -> tuple[str, str] | None:
    """Return the module and the name of the library's trainer for an algorithm; None if there is none."""
    return IMPLEMENTATIONS[algorithm.kind].trainer
