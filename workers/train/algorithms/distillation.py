"""Distillation: the student's next-token distributions approach those of a larger model, the teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn import Parameter
from torch.nn.functional import log_softmax

from luthier.algorithms import Gkd
from luthier.errors import TrialFailed
from luthier.task import DataKind
from workers.train.algorithms.base import Batch, Context, Example, Loss, Policy, Reference, Teacher, implements
from workers.train.data.padding_free import UnpaddedRows
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import CausalModel, target_logits
from workers.train.rollouts.play import SAMPLING_BATCH
from workers.train.rollouts.sampling import sample


@implements(Gkd, trainer=("trl.experimental.gkd", "GKD"))
class GeneralisedKnowledgeDistillation:
    """GKD, Agarwal et al. 2024, algorithm 1, with the generalised Jensen-Shannon divergence of its equation 1.

    The loss is the mean divergence over the target tokens. With probability `share` a step's answers are the student's
    own, sampled at temperature 1 for the same prompts; no gradient flows through the sampling. As in TRL, one draw
    decides for the whole batch.
    """

    reference: Reference = "none"

    def __init__(self, algorithm: Gkd, context: Context) -> None:
        self.algorithm = algorithm
        self.given = context.teacher

    @property
    def teacher(self) -> Teacher:
        """Raises TrialFailed where the worker was given no teacher."""
        if self.given is None:
            raise TrialFailed(f"gkd needs its teacher, {self.algorithm.teacher}")
        return self.given

    def examples(self, row: Row, kind: DataKind, renderer: Renderer) -> list[Example]:
        return [(tokens,) for tokens in renderer.answers(row, kind)]

    def batch(self, examples: Sequence[Example], policy: Policy) -> Batch:
        drawn = float(torch.rand((), generator=torch.Generator().manual_seed(policy.step_seed)))
        if drawn >= self.algorithm.share:
            return Batch(examples=examples, values={"on_policy": 0.0})
        own = self._own_answers([tokens for (tokens,) in examples], policy)
        lengths = [tokens.targets for tokens in own]
        values = {"on_policy": 1.0, "completion_length": sum(lengths) / len(lengths)}
        return Batch(examples=[(tokens,) for tokens in own], values=values)

    def _own_answers(self, rows: Sequence[Tokens], policy: Policy) -> list[Tokens]:
        """Replace the last answer of each row by one of the student's. A row whose prompt fills the context stays."""
        context: int | None = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
        prompts = [tokens.ids[: _last_answer(tokens)] for tokens in rows]
        room = self.teacher.max_new_tokens if context is None else context - max(map(len, prompts))
        if room < 1:
            return list(rows)
        answers = sample(
            policy.model,
            self.teacher.tokenizer,
            prompts,
            max_new_tokens=min(room, self.teacher.max_new_tokens),
            seed=policy.step_seed,
            batch=SAMPLING_BATCH,
        )
        return [
            Tokens(ids=prompt + answer, target=(False,) * len(prompt) + (True,) * len(answer), target_bytes=0)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def weight(self, examples: Sequence[Example]) -> float:
        return float(sum(tokens.targets for (tokens,) in examples))

    def parameters(self, model: CausalModel, seed: int) -> dict[str, Parameter]:
        return {}

    def read(self, model: CausalModel, head: Mapping[str, Parameter], rows: UnpaddedRows) -> torch.Tensor:
        """Return the divergence at each target token: [N]. Vocabularies may be padded to different sizes."""
        student_NV = target_logits(model, rows)
        with torch.no_grad():
            teacher_NV = target_logits(self.teacher.model, rows)
        shared = min(student_NV.shape[1], teacher_NV.shape[1])
        return jensen_shannon(student_NV[:, :shared], teacher_NV[:, :shared], self.algorithm.beta)

    def loss(self, logp_N: torch.Tensor, rows: UnpaddedRows, signal: torch.Tensor | None) -> Loss:
        """`logp_N` is what `read` returned: divergences."""
        return Loss(total=logp_N.sum(), sums={})


def jensen_shannon(student_NV: torch.Tensor, teacher_NV: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the generalised Jensen-Shannon divergence of two distributions, given as logits: [N, V] → [N], in nats.

    β KL(teacher | m) + (1 - β) KL(student | m) with m = β teacher + (1 - β) student. Its limits are KL(teacher |
    student) at β = 0 and KL(student | teacher) at β = 1, as in TRL.
    """
    student, teacher = log_softmax(student_NV, -1), log_softmax(teacher_NV, -1)
    if beta == 0:
        return _kl(teacher, student)
    if beta == 1:
        return _kl(student, teacher)
    mixture = torch.logaddexp(student + math.log1p(-beta), teacher + math.log(beta))
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def _kl(of_NV: torch.Tensor, from_NV: torch.Tensor) -> torch.Tensor:
    """Return KL(of | from) of log-probabilities: [N]."""
    return (of_NV.exp() * (of_NV - from_NV)).sum(-1)


def _last_answer(tokens: Tokens) -> int:
    """Return where the last run of target tokens starts."""
    end = max(t for t, is_target in enumerate(tokens.target) if is_target)
    return next(t + 1 for t in range(end, -1, -1) if t == 0 or not tokens.target[t])
