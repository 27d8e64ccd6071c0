"""The learning algorithms: one objective for each member of `luthier.design.Algorithm`."""

from __future__ import annotations

from luthier.design import Algorithm, Clm, Dpo, Grpo, Ipo, Kto, Mlm, Orpo, Raft, RewardModel, Rloo, Sft, Simpo
from workers.train.algorithms.base import Example, Loss, Objective
from workers.train.algorithms.online_rl import (
    GroupRelativePolicyOptimisation,
    ReinforceLeaveOneOut,
    RewardRankedFineTuning,
)
from workers.train.algorithms.preference import (
    DirectPreferenceOptimisation,
    IdentityPreferenceOptimisation,
    OddsRatioPreferenceOptimisation,
    RewardModelling,
    SimplePreferenceOptimisation,
)
from workers.train.algorithms.supervised import CausalLanguageModelling, MaskedLanguageModelling, SupervisedFineTuning
from workers.train.algorithms.unpaired import KahnemanTverskyOptimisation
from workers.train.rollouts.play import World

__all__ = ["Example", "Loss", "Objective", "objective"]


def objective(algorithm: Algorithm, world: World | None = None) -> Objective:
    """Return the objective of an algorithm.

    Online RL gets its rewards from `world`. Without one it can make examples, but no batches.
    """
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
        case Grpo():
            return GroupRelativePolicyOptimisation(algorithm, world)
        case Rloo():
            return ReinforceLeaveOneOut(algorithm, world)
        case Raft():
            return RewardRankedFineTuning(algorithm, world)
        case Kto():
            return KahnemanTverskyOptimisation(algorithm)
        case RewardModel():
            return RewardModelling(algorithm)
        case Mlm():
            return MaskedLanguageModelling(algorithm)
