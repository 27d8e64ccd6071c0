"""The judge: score a model on held-out rows, in the same way for every trial of a job, however it was trained.

Perplexity is exp of the mean negative log-likelihood over target tokens (eval_loss in other tools is its logarithm).
Bits per byte is the same likelihood divided by the bytes of the targets' text, which compares across tokenizers. The
text is the dataset's, with tool calls as JSON, and without what a chat template adds: so it is the same for all models.

Encoders have a pseudo-log-likelihood instead (Salazar et al. 2020): each token is masked alone and predicted from all
others in its window. That takes a forward pass per token, so it is measured on a sample: evenly spaced windows, and
evenly spaced tokens in each. The spacing does not depend on the text, so the estimate is unbiased.

The reward depends on the data. With a grader or an environment it is the mean reward of greedy generations. For
preference pairs it is the share of pairs whose chosen answer has the higher mean log-likelihood; ties count half.

For unpaired preference labels it is the area under the ROC curve of the mean log-likelihood per token: the probability
that a desirable answer is likelier per token than an undesirable one. It needs no reference model, and unlike
perplexity it ignores a shift of all answers together. Its limit: it compares answers to different prompts, so it is
noisy and rarely close to 1. It ranks the trials of one job, and says little about a single one.

The same forward passes give scores for each row, from which confidence intervals are computed. Catastrophic forgetting
is measured as bits per byte on `general.txt`, plain English on many subjects, the same in every job.
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

GENERAL: Final = Path(__file__).with_name("general.txt")  # paragraphs, separated by empty lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """The likelihood of rows.

    nll, tokens, bytes  for each row: negative log-likelihood in nats, target tokens, UTF-8 bytes of the targets
    total, content      sums of `nll` and `bytes`
    """

    nll: tuple[float, ...]
    tokens: tuple[int, ...]
    bytes: tuple[float, ...]
    total: float
    content: float


def renderer(tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec) -> Renderer:
    """Return the job's renderer. Its length limits are the same for every model, whatever the model's context."""
    return Renderer(tokenizer, window=spec.window, max_tokens=spec.max_tokens, clock=spec.clock)


def judge(model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec, rows: Sequence[Row]) -> Metrics:
    """Score `model` on held-out rows.

    Raises TrialFailed if no row can be scored or a score is not finite. Raises GraderFault if this machine's settings
    forbid the task's grader, or if a grader endpoint does not answer.
    """
    return judge_rows(model, tokenizer, spec, rows)[0]


@torch.no_grad()
def judge_rows(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec, rows: Sequence[Row]
) -> tuple[Metrics, RowScores]:
    """Do the same as `judge`, and also return the scores of each row."""
    model.eval()
    render = renderer(tokenizer, spec)
    scored = [row for row in rows[: spec.max_rows] if spec.family == "encoder" or has_targets(render, row, spec.kind)]
    found = row_likelihoods(model, render, spec, scored)
    tokens = sum(found.tokens)
    perplexity = math.exp(min(found.total / tokens, 700.0))  # exp overflows above 709
    encoder = spec.family == "encoder"
    reward = _reward(model, render, spec, scored)
    if not all(map(math.isfinite, reward.rows)):
        raise TrialFailed("the likelihood or the reward of a held-out row is not finite")
    metrics = Metrics(
        perplexity=None if encoder else perplexity,
        pseudo_perplexity=perplexity if encoder else None,
        bits_per_byte=found.total / math.log(2) / found.content,
        reward=reward.value,
        reward_name=reward.name,
        margin=reward.margin,
        tokens=tokens,
        rows=len(scored),
    )
    labels = tuple(bool(row["label"]) for row in scored) if spec.kind is DataKind.UNPAIRED else None
    return metrics, RowScores(
        nll=found.nll, tokens=found.tokens, bytes=found.bytes, reward=reward.rows or None, labels=labels
    )


def has_targets(render: Renderer, row: Row, kind: DataKind) -> bool:
    """Return whether the length limit leaves the row something to score: of preferences, in both answers.

    A row without is in no metric: its prompt alone fills the limit.
    """
    match kind:
        case DataKind.PREFERENCE:
            answers = [render.pair(row["prompt"], row[side], row.get("tools")) for side in ("chosen", "rejected")]
            return all(answer.targets for answer in answers)
        case DataKind.UNPAIRED:
            return bool(render.pair(row["prompt"], row["completion"]).targets)
        case DataKind.TEXT | DataKind.PAIRS | DataKind.CHAT | DataKind.PROMPTS:
            return bool(render.answers(row, kind))


@torch.no_grad()
def general_bits_per_byte(model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec) -> float:
    """Return bits per byte on the general text, to measure forgetting. Raises TrialFailed if it is not finite."""
    model.eval()
    as_text = spec.model_copy(update={"kind": DataKind.TEXT})
    found = row_likelihoods(model, renderer(tokenizer, as_text), as_text, general_rows())
    return found.total / math.log(2) / found.content


@cache
def general_rows() -> tuple[Row, ...]:
    """Return the paragraphs of the general text as rows."""
    paragraphs = GENERAL.read_text(encoding="utf-8").strip().split("\n\n")
    return tuple({"text": " ".join(paragraph.split())} for paragraph in paragraphs)


@torch.no_grad()
def row_likelihoods(model: CausalModel, render: Renderer, spec: JudgeSpec, rows: Sequence[Row]) -> Likelihood:
    """Return the likelihood of the rows' answers; for encoders that of a sample, with a proportional share of bytes."""
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
        raise TrialFailed("no held-out row has a target token within the length limit (max_length)")
    total, scores, weighted = 0.0, list[float](), iter(weights)
    for laid in _batches(model, [(tokens,) for tokens in flat]):
        score_S = sequence_logps(target_logps(model, laid).double(), laid)
        group = [score * weight for score, weight in zip(score_S.tolist(), weighted, strict=False)]
        total += sum(group)
        scores += group
    if not math.isfinite(total):
        raise TrialFailed("the model's likelihood on the held-out rows is not finite")
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
    """Sample tokens for the pseudo-log-likelihood.

    Return, for each sampled token: its row, a sequence with only that token masked, and its weight. Weights have mean 1
    and grow with the tokens of a window per sampled one. Then (row, bytes) for each window, and the bytes in total:
    those of the windows' text, scaled by the share of its tokens that was sampled.
    """
    windows = [(i, window) for i, row in enumerate(rows) for window in render.bidirectional(row["text"])]
    windows = [windows[i] for i in evenly(len(windows), spec.pseudo_windows)]
    owner: list[int] = []
    masked: list[Tokens] = []
    stands_for: list[float] = []
    for i, window in windows:
        places = [t for t, is_target in enumerate(window.target) if is_target]
        chosen = [places[t] for t in evenly(len(places), spec.pseudo_positions)]
        masked.extend(window.with_targets({t: window.mask}) for t in chosen)
        owner.extend([i] * len(chosen))
        stands_for.extend([len(places) / len(chosen)] * len(chosen))
    share = len(masked) / max(1.0, sum(stands_for))
    sizes = [(i, share * window.target_bytes) for i, window in windows]
    content = share * sum(window.target_bytes for _, window in windows)
    return owner, masked, [weight * share for weight in stands_for], sizes, content


def evenly(total: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced indices below `total`, each in the middle of its share."""
    count = min(total, most)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def _batches(model: CausalModel, examples: Sequence[tuple[Tokens, ...]]) -> Iterator[UnpaddedRows]:
    for group in within(examples, TOKEN_CAP[model.device.type]):
        yield lay_out([tokens for example in group for tokens in example], model.device)


class _Reward(NamedTuple):
    """The mean reward, its name, the value for each row, and the mean margin of log-likelihoods if there is one."""

    value: float | None = None
    name: str | None = None
    rows: tuple[float, ...] = ()
    margin: float | None = None


def _reward(model: CausalModel, render: Renderer, spec: JudgeSpec, rows: Sequence[Row]) -> _Reward:
    match spec.kind:
        case DataKind.PREFERENCE:
            return _preference_accuracy(model, render, rows)
        case DataKind.UNPAIRED:
            return _label_auc(model, render, rows)
        case DataKind.TEXT:
            return _Reward()
        case DataKind.PAIRS | DataKind.CHAT | DataKind.PROMPTS:
            world = world_of(spec, render)
            if world is None:
                return _Reward()
            rewards = [rollout.reward for rollout in play(model, world, rows[: spec.max_generations])]
            return _Reward(sum(rewards) / len(rewards), world.name, tuple(rewards))


@torch.no_grad()
def _preference_accuracy(model: CausalModel, render: Renderer, rows: Sequence[Row]) -> _Reward:
    """Return the preference accuracy: a row counts 1 if its chosen answer is likelier per token, 0.5 if they tie."""
    answers = ("chosen", "rejected")
    pairs = [tuple(render.pair(r["prompt"], r[a], r.get("tools")) for a in answers) for r in rows]
    means = [
        per_token(sequence_logps(target_logps(model, laid), laid), laid).view(-1, 2).double()
        for laid in _batches(model, pairs)
    ]
    margin_P = torch.cat([mean_P2[:, 0] - mean_P2[:, 1] for mean_P2 in means])
    wins = ((margin_P > 0).double() + 0.5 * (margin_P == 0).double()).tolist()
    return _Reward(sum(wins) / len(wins), "preference_accuracy", tuple(wins), float(margin_P.mean()))


def _label_auc(model: CausalModel, render: Renderer, rows: Sequence[Row]) -> _Reward:
    """Return the label AUC; the value of a row is its mean log-likelihood per token."""
    answers = [(render.pair(row["prompt"], row["completion"]),) for row in rows]
    parts = [per_token(sequence_logps(target_logps(model, laid), laid), laid) for laid in _batches(model, answers)]
    mean_S, desirable_S = torch.cat(parts), torch.tensor([row["label"] for row in rows], device=model.device)
    margin_DU = mean_S[desirable_S][:, None] - mean_S[~desirable_S][None]
    if not margin_DU.numel():
        raise TrialFailed("the held-out rows all have the same label, so the label AUC is undefined")
    area = float(((margin_DU > 0).double() + 0.5 * (margin_DU == 0).double()).mean())
    return _Reward(area, "label_auc", tuple(mean_S.tolist()), float(margin_DU.mean()))
