"""Online RL (RLHF and verifiable rewards): GRPO, RLOO and RAFT on rollouts of the policy.

Every step samples its rollouts from the current weights, so importance ratios are 1 and clipping has no effect. A step
in which all rollouts of each prompt have equal rewards has no signal, and changes no parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from luthier.algorithms import Grpo, Raft, Rloo
from luthier.errors import TrialFailed
from luthier.task import DataKind
from workers.train.algorithms.base import Batch, Context, Example, Loss, Policy, Reference, implements, sequence_logps
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Prompt, Renderer, Row
from workers.train.rollouts.play import opening, play

STD_EPSILON: Final = 1e-4  # added to a group's standard deviation of rewards, as in TRL


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rollouts:
    """A step's rollouts, grouped by prompt: P prompts with G rollouts each.

    reward_PG  their rewards
    differ_P   the prompts whose rollouts have different rewards
    """

    rollouts: list[Example]
    reward_PG: torch.Tensor
    differ_P: torch.Tensor

    def batch(self, rollouts: Sequence[Example], signals: Sequence[torch.Tensor] | None) -> Batch:
        """Return a batch of these rollouts; an empty one if no prompt has different rewards."""
        kept = len(rollouts) if self.differ_P.any() else 0
        lengths = [tokens.targets for example in self.rollouts for tokens in example]
        values = {
            "reward": float(self.reward_PG.mean()),
            "reward_std": float(self.reward_PG.std(1).mean()),
            "completion_length": sum(lengths) / len(lengths),
            "rollouts_kept": float(kept),
        }
        return Batch(examples=rollouts[:kept], signals=signals[:kept] if signals else None, values=values)


class _OnlineRL:
    """Base of the online algorithms. An example is a prompt; a step samples `group` rollouts for each prompt."""

    reference: Reference = "none"

    def __init__(self, algorithm: Grpo | Rloo | Raft, context: Context) -> None:
        self.name = algorithm.kind
        self.group = algorithm.group
        self.world = context.world

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        ids = opening(row, kind, renderer)
        return [(Prompt(ids=ids, target=(False,) * len(ids), target_bytes=0, row=row),)]

    def play(self, prompts: Sequence[Example], policy: Policy) -> _Rollouts:
        """Sample rollouts and reward them. Raises TrialFailed if the task has no reward."""
        if self.world is None:
            raise TrialFailed(f"{self.name} needs a reward: give the task a grader or an environment")
        rows = [tokens.row for example in prompts for tokens in example if isinstance(tokens, Prompt)]
        rollouts = play(policy.model, self.world, rows, attempts=self.group, seed=policy.step_seed)
        rewards = torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float64)
        reward_PG = rewards.view(len(rows), self.group)
        return _Rollouts(
            rollouts=[(rollout.tokens,) for rollout in rollouts],
            reward_PG=reward_PG,
            differ_P=reward_PG.amax(1) > reward_PG.amin(1),
        )


@implements(Grpo, trainer=("trl", "GRPO"))
class GroupRelativePolicyOptimisation(_OnlineRL):
    """GRPO, Shao et al. 2024, equations 3 and 4: token-level policy gradient with an optional KL penalty.

    The advantage of a rollout is its reward minus the group's mean, divided by the group's standard deviation. The KL
    estimate is weighted by the importance ratio, so that its gradient is unbiased (DeepSeek-V3.2, 2025).

    The mean is over all tokens of the step, as in DAPO (Yu et al. 2025) and in TRL by default. The paper's mean per
    rollout would penalise each token of a long bad answer less.
    """

    def __init__(self, algorithm: Grpo, context: Context) -> None:
        super().__init__(algorithm, context)
        self.beta = algorithm.beta
        self.reference: Reference = "weights" if algorithm.beta else "none"

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        played = self.play(examples, policy)
        reward_PG = played.reward_PG
        advantage_PG = (reward_PG - reward_PG.mean(1, keepdim=True)) / (reward_PG.std(1, keepdim=True) + STD_EPSILON)
        advantage_PG = advantage_PG.where(played.differ_P[:, None], 0.0)  # equal rewards, up to rounding
        lengths = [tokens.targets for example in played.rollouts for tokens in example]
        columns = [
            [torch.full((n,), a) for n, a in zip(lengths, advantage_PG.flatten().tolist(), strict=True)],
            policy.reference_logps(played.rollouts) if self.beta else [],
        ]
        device = policy.model.device
        signals = [
            torch.stack([column.to(device) for column in of_rollout], 1)
            for of_rollout in zip(*filter(None, columns), strict=True)
        ]
        return played.batch(played.rollouts, signals)

    def weight(self, examples: Sequence[Example]) -> float:
        return float(sum(tokens.targets for example in examples for tokens in example))

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        if signal is None:
            raise ValueError("grpo needs advantages as its signal")
        ratio_N = (logp_N - logp_N.detach()).exp()
        if not self.beta:
            return Loss(total=-(ratio_N * signal[:, 0]).sum(), sums={})
        gap_N = signal[:, 1] - logp_N
        kl_N = gap_N.exp() - gap_N - 1
        total = (ratio_N * (self.beta * kl_N - signal[:, 0])).sum()
        return Loss(total=total, sums={"kl": float(kl_N.detach().sum())})


@implements(Rloo, trainer=("trl", "RLOO"))
class ReinforceLeaveOneOut(_OnlineRL):
    """RLOO, Ahmadian et al. 2024: sequence-level REINFORCE. The baseline of a rollout is the mean reward of the others.

    The reward includes the KL penalty: minus `beta` times the rollout's log-ratio to the reference.
    """

    def __init__(self, algorithm: Rloo, context: Context) -> None:
        super().__init__(algorithm, context)
        self.beta = algorithm.beta
        self.reference: Reference = "weights" if algorithm.beta else "none"

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        played = self.play(examples, policy)
        reward_PG, kl = played.reward_PG, {}
        if self.beta and played.differ_P.any():
            now, then = policy.logps(played.rollouts), policy.reference_logps(played.rollouts)
            ratio_PG = torch.stack([(a - b).sum() for a, b in zip(now, then, strict=True)]).cpu().view_as(reward_PG)
            reward_PG, kl = reward_PG - self.beta * ratio_PG, {"kl": float(ratio_PG.mean())}
        baseline_PG = (reward_PG.sum(1, keepdim=True) - reward_PG) / (self.group - 1)
        advantages = (reward_PG - baseline_PG).float().flatten().to(policy.model.device)
        batch = played.batch(played.rollouts, advantages.split(1))
        return replace(batch, values={**batch.values, **kl})

    def weight(self, examples: Sequence[Example]) -> float:
        return float(len(examples))

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        if signal is None:
            raise ValueError("rloo needs advantages as its signal")
        score_S = sequence_logps(logp_N, rows)
        return Loss(total=-((score_S - score_S.detach()).exp() * signal).sum(), sums={})


@implements(Raft, trainer=None)
class RewardRankedFineTuning(_OnlineRL):
    """RAFT (rejection sampling), Dong et al. 2023: maximum likelihood of the best rollout of each prompt.

    Prompts whose rollouts have equal rewards are left out. Rollouts are sampled anew in every step, not once per round.
    """

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        played = self.play(examples, policy)
        best_P = played.reward_PG.argmax(1).tolist()
        chosen = [
            played.rollouts[prompt * self.group + best]
            for prompt, (best, differ) in enumerate(zip(best_P, played.differ_P.tolist(), strict=True))
            if differ
        ]
        return played.batch(chosen, None)

    def weight(self, examples: Sequence[Example]) -> float:
        return float(sum(tokens.targets for example in examples for tokens in example))

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        return Loss(total=-logp_N.sum(), sums={})
