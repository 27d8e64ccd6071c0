"""Axis two, the learning algorithm: one objective for each member of `luthier.design.Algorithm`."""

from __future__ import annotations

from luthier.design import Algorithm, Clm, Dpo, Ipo, Mlm, Orpo, Sft, Simpo
from workers.train.algorithms.likelihood import CausalLanguageModelling, SupervisedFineTuning
from workers.train.algorithms.masked import MaskedLanguageModelling
from workers.train.algorithms.objective import Example, Loss, Objective
from workers.train.algorithms.preference import (
    DirectPreferenceOptimisation,
    IdentityPreferenceOptimisation,
    OddsRatioPreferenceOptimisation,
    SimplePreferenceOptimisation,
)

__all__ = ["Example", "Loss", "Objective", "objective"]


def objective(algorithm: Algorithm) -> Objective:
    """The objective that an algorithm names."""
    match algorithm:
        case Clm():
            return CausalLanguageModelling(algorithm)
        case Sft():
            return SupervisedFineTuning(algorithm)
        case Dpo():
            return DirectPreferenceOptimisation(algorithm)
        case Ipo():
            return IdentityPreferenceOptimisation(algorithm)
        case Simpo():
            return SimplePreferenceOptimisation(algorithm)
        case Orpo():
            return OddsRatioPreferenceOptimisation(algorithm)
        case Mlm():
            return MaskedLanguageModelling(algorithm)
