"""The judge: scores a model on held-out rows, the same way for every trial of a job, whatever trained it.

Perplexity is exp of the mean negative log-likelihood over target tokens; bits per byte is the same likelihood over the
bytes of the targets' own text, which makes tokenizers comparable. Encoders have a pseudo-log-likelihood in its place
(Salazar et al. 2020): each token is masked alone and predicted from all others of its window. That takes a pass for
each token, so it is measured on a sample: windows at even distances over the rows, tokens at even distances in each.
The distances do not depend on the text, so the sample's mean estimates that of all tokens without bias towards any.

The reward is the mean grade of greedy generations where the task has a grader, and for preference data the share of
held-out pairs whose chosen answer the model finds likelier per token (ties count half).

For unpaired data the reward is the area under the ROC curve of the same likelihood per token as a test for the label:
the probability that a desirable held-out answer is likelier per token than an undesirable one. It needs nothing but the
model at hand, so the base and every trial are measured alike, and it is blind to a shift of all answers together, which
perplexity is not. Its limit: answers to different prompts are compared, so how hard the prompts are to answer blurs it,
and it rarely comes near 1. It ranks trials of one job; it says little about a single one.

Beside the totals stand the scores of each row, from the same passes: what intervals are drawn from. What a model
forgets is measured on `general.txt`, plain English about everything and nothing, the same text in every job.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from luthier.errors import TrialFailed
from luthier.task import DataKind, JudgeSpec
from luthier.trial import Metrics, RowScores
from workers.train.algorithms.base import per_token, sequence_logps
from workers.train.data.padding_free import UnpaddedRows, lay_out, within
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import TOKEN_CAP, CausalModel, target_logps
from workers.train.rollouts.play import play, world_of

GENERAL: Final = Path(__file__).with_name("general.txt")  # paragraphs, with empty lines between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Of some rows, in their order: negative log-likelihood of their targets in nats, target tokens, and the bytes of
    the targets' text; and the sums over them."""

    nll: tuple[float, ...]
    tokens: tuple[int, ...]
    bytes: tuple[float, ...]
    total: float
    content: float


def renderer(tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec) -> Renderer:
    """The job's way to turn rows into tokens: the same for every model, even where a row exceeds its context."""
    return Renderer(tokenizer, window=spec.window, max_tokens=spec.max_tokens)


def judge(model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec, rows: Sequence[Row]) -> Metrics:
    """Score `model` on held-out rows.

    Raises TrialFailed where nothing can be scored or a score is not a number, and GraderFault where this machine's
    settings do not allow the task's grader, or what grades does not answer.
    """
    return judge_rows(model, tokenizer, spec, rows)[0]


@torch.no_grad()
def judge_rows(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec, rows: Sequence[Row]
) -> tuple[Metrics, RowScores]:
    """Like `judge`, with the scores of each row."""
    model.eval()
    render = renderer(tokenizer, spec)
    scored = rows[: spec.max_rows]
    found = row_likelihoods(model, render, spec, scored)
    tokens = sum(found.tokens)
    perplexity = math.exp(min(found.total / tokens, 700.0))  # exp overflows just above 709
    encoder = spec.family == "encoder"
    rewarded = _reward(model, render, spec, scored)
    if not all(map(math.isfinite, rewarded.rows)):
        raise TrialFailed("a held-out row's likelihood or reward is not a number")
    metrics = Metrics(
        perplexity=None if encoder else perplexity,
        pseudo_perplexity=perplexity if encoder else None,
        bits_per_byte=found.total / math.log(2) / found.content,
        reward=rewarded.value,
        reward_name=rewarded.name,
        margin=rewarded.margin,
        tokens=tokens,
        rows=len(scored),
    )
    labels = tuple(bool(row["label"]) for row in scored) if spec.kind is DataKind.UNPAIRED else None
    return metrics, RowScores(
        nll=found.nll, tokens=found.tokens, bytes=found.bytes, reward=rewarded.rows or None, labels=labels
    )


@torch.no_grad()
def general_bits_per_byte(model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec) -> float:
    """Bits per byte on the general text, read as the job reads text. Raises TrialFailed where it is not a number."""
    model.eval()
    as_text = spec.model_copy(update={"kind": DataKind.TEXT})
    found = row_likelihoods(model, renderer(tokenizer, as_text), as_text, general_rows())
    return found.total / math.log(2) / found.content


@cache
def general_rows() -> tuple[Row, ...]:
    """The paragraphs of the general text."""
    paragraphs = GENERAL.read_text(encoding="utf-8").strip().split("\n\n")
    return tuple({"text": " ".join(paragraph.split())} for paragraph in paragraphs)


@torch.no_grad()
def row_likelihoods(model: CausalModel, render: Renderer, spec: JudgeSpec, rows: Sequence[Row]) -> Likelihood:
    """Likelihood of the rows' answers; for encoders that of the sample, whose bytes are those that it stands for."""
    match spec.family:
        case "decoder":
            answers = [(i, tokens) for i, row in enumerate(rows) for tokens in render.answers(row, spec.kind)]
            owner, flat = [i for i, _ in answers], [tokens for _, tokens in answers]
            weights = [1.0] * len(flat)
            sizes = [(i, float(tokens.target_bytes)) for i, tokens in answers]
            content = float(sum(tokens.target_bytes for tokens in flat))
        case "encoder":
            owner, flat, weights, sizes, content = _sampled(render, spec, rows)
    if not flat:
        raise TrialFailed("no held-out row has a target within the length limit")
    total, scores, weighted = 0.0, list[float](), iter(weights)
    for laid in _laid(model, [(tokens,) for tokens in flat]):
        score_S = sequence_logps(target_logps(model, laid).double(), laid)
        group = [score * weight for score, weight in zip(score_S.tolist(), weighted, strict=False)]
        total += sum(group)
        scores += group
    if not math.isfinite(total):
        raise TrialFailed("the model's held-out likelihood is not a number")
    nll, tokens_of, bytes_of = [0.0] * len(rows), [0] * len(rows), [0.0] * len(rows)
    for i, tokens, score in zip(owner, flat, scores, strict=True):
        nll[i] -= score
        tokens_of[i] += tokens.targets
    for i, size in sizes:
        bytes_of[i] += size
    return Likelihood(
        nll=tuple(nll), tokens=tuple(tokens_of), bytes=tuple(bytes_of), total=-total, content=max(1.0, content)
    )


def _sampled(
    render: Renderer, spec: JudgeSpec, rows: Sequence[Row]
) -> tuple[list[int], list[Tokens], list[float], list[tuple[int, float]], float]:
    """One sequence for each token sampled, with that token masked, and the row it is of; its weight, which is larger
    where a window has more tokens for each one sampled (1 on average); and the bytes that the sample stands for, of
    each window with its row and in all."""
    windows = [(i, window) for i, row in enumerate(rows) for window in render.both_ways(row["text"])]
    windows = [windows[i] for i in evenly(len(windows), spec.pseudo_windows)]
    owner: list[int] = []
    masked: list[Tokens] = []
    stands_for: list[float] = []
    for i, window in windows:
        places = [t for t, is_target in enumerate(window.target) if is_target]
        chosen = [places[i] for i in evenly(len(places), spec.pseudo_positions)]
        masked.extend(window.hiding({t: window.mask}) for t in chosen)
        owner.extend([i] * len(chosen))
        stands_for.extend([len(places) / len(chosen)] * len(chosen))
    share = len(masked) / max(1.0, sum(stands_for))
    sizes = [(i, share * window.target_bytes) for i, window in windows]
    content = share * sum(window.target_bytes for _, window in windows)
    return owner, masked, [weight * share for weight in stands_for], sizes, content


def evenly(total: int, most: int) -> list[int]:
    """At most so many of the numbers below `total`, each in the middle of its share."""
    count = min(total, most)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def _laid(model: CausalModel, examples: Sequence[tuple[Tokens, ...]]) -> Iterator[UnpaddedRows]:
    for group in within(examples, TOKEN_CAP[model.device.type]):
        yield lay_out([tokens for example in group for tokens in example], model.device)


class _Rewarded(NamedTuple):
    """The reward, its name, what it is made of, row by row, and the margin where there is one."""

    value: float | None = None
    name: str | None = None
    rows: tuple[float, ...] = ()
    margin: float | None = None


def _reward(model: CausalModel, render: Renderer, spec: JudgeSpec, rows: Sequence[Row]) -> _Rewarded:
    match spec.kind:
        case DataKind.PREFERENCE:
            return _preferred(model, render, rows)
        case DataKind.UNPAIRED:
            return _label_auc(model, render, rows)
        case DataKind.TEXT:
            return _Rewarded()
        case DataKind.PAIRS | DataKind.CHAT | DataKind.PROMPTS:
            world = world_of(spec, render)
            if world is None:
                return _Rewarded()
            rewards = [rollout.reward for rollout in play(model, world, rows[: spec.max_generations])]
            return _Rewarded(sum(rewards) / len(rewards), world.name, tuple(rewards))


@torch.no_grad()
def _preferred(model: CausalModel, render: Renderer, rows: Sequence[Row]) -> _Rewarded:
    """For each row 1 where the chosen answer is the likelier one per token; a tie is half a win."""
    answers = ("chosen", "rejected")
    pairs = [tuple(render.pair(r["prompt"], r[a], r.get("tools")) for a in answers) for r in rows]
    means = [
        per_token(sequence_logps(target_logps(model, laid), laid), laid).view(-1, 2).double()
        for laid in _laid(model, pairs)
    ]
    lead_P = torch.cat([mean_P2[:, 0] - mean_P2[:, 1] for mean_P2 in means])
    wins = ((lead_P > 0).double() + 0.5 * (lead_P == 0).double()).tolist()
    return _Rewarded(sum(wins) / len(wins), "preference_accuracy", tuple(wins), float(lead_P.mean()))


def _label_auc(model: CausalModel, render: Renderer, rows: Sequence[Row]) -> _Rewarded:
    """The share of (desirable, undesirable) pairs of rows that the likelihood per token puts in order; and that
    likelihood."""
    answers = [(render.pair(row["prompt"], row["completion"]),) for row in rows]
    parts = [per_token(sequence_logps(target_logps(model, laid), laid), laid) for laid in _laid(model, answers)]
    mean_S, wanted_S = torch.cat(parts), torch.tensor([row["label"] for row in rows], device=model.device)
    lead_DU = mean_S[wanted_S][:, None] - mean_S[~wanted_S][None]
    if not lead_DU.numel():
        raise TrialFailed("the held-out rows are all of one label: there is nothing to tell apart")
    area = float(((lead_DU > 0).double() + 0.5 * (lead_DU == 0).double()).mean())
    return _Rewarded(area, "label_auc", tuple(mean_S.tolist()), float(lead_DU.mean()))
