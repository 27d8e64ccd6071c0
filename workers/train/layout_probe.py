"""Find out how a model reads several rows at once, by comparing each layout with plain passes over one row.

State-space layers, ALiBi, attention sinks, attention that bypasses transformers' interface, and positions that depend
on the longest row of a call would silently mix rows or change them. So a layout is taken only if values and gradients
are those of each row alone, for rows longer than the model's window, attention chunk and original context.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import Parameter
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

from luthier.errors import Infeasible
from workers.train.attention import recording
from workers.train.data.padding_free import UnpaddedRows, lay_out
from workers.train.data.tokenize import Masked, Tokens
from workers.train.layouts import Layout, RowLayout, is_encoder, logits

MOST_TOKENS: Final = 4096  # in all rows of the probe
LEAST_TOKENS: Final = 72
WORK: Final = 5_000_000_000  # most parameters times tokens of the probe
COMPARED: Final = 1_000_000  # numbers in the parameters whose gradients are compared, the smallest parameters first
ANSWERED: Final = 3  # tokens that each prompt of the probe is answered with

VALUE, GRADIENT, ROUNDING = 1e-3, 1e-2, 2e-6  # limits of differences: two relative, one absolute

# Settings after which a model reads a longer row in another way.
_ORIGINAL, _CHUNK, _DYNAMIC = "original_max_position_embeddings", "attention_chunk_size", "keep_window_size"
_WINDOWS: Final = ("sliding_window", "attention_window_size", "window_size")
_SETTINGS: Final = (
    *_WINDOWS,
    _DYNAMIC,
    "mamba_chunk_size",
    "chunk_size",
    _ORIGINAL,
    _CHUNK,
)
# Layouts that are not taken where the probe cannot reach a setting, because the setting is known to break them.
_UNTRIED: Final[dict[str, tuple[RowLayout, ...]]] = {
    _CHUNK: (RowLayout.UNPADDED,),
    _DYNAMIC: (RowLayout.UNPADDED, RowLayout.PADDED),  # Doge's mask counts the padding
}
_KEPT: Final = "_luthier_layout"  # attribute of a model; copies of the model have it too


def layout_of(model: PreTrainedModel) -> Layout:
    """Return the layout of a model. Probed at first, kept on the model, and copied with it. Raises as `probe`."""
    kept = vars(model).get(_KEPT)
    if isinstance(kept, Layout):
        return kept
    found = probe(model)
    keep_layout(model, found)
    return found


def keep_layout(model: PreTrainedModel, layout: Layout) -> None:
    """Make this the layout of a model, such as an edited copy of one that was probed."""
    vars(model)[_KEPT] = layout


def row_layout(model: PreTrainedModel, *, most_tokens: int | None = None) -> RowLayout:
    """Return how the model reads rows: the first of unpadded, padded and single that changes nothing. Raises as
    `probe`."""
    return probe(model, most_tokens=most_tokens).rows


@torch.enable_grad()
def probe(model: PreTrainedModel, *, most_tokens: int | None = None) -> Layout:
    """Return how the model reads rows and prompts. `most_tokens` limits the probe; by default by the model's size.

    Raises Infeasible if the model cannot be read even one row at a time: its scores are not finite or not
    reproducible, or a decoder sees the tokens that follow.
    """
    family = type(model).__name__
    budget = most_tokens or _budget(model)
    marks = _marks(model.config)
    rows = probe_rows(model, most_tokens=budget)
    boundary = marks.get(_ORIGINAL) if "longrope" in marks else None
    reasons: dict[RowLayout, str] = {}
    for name, layouts in _UNTRIED.items():
        if marks.get(name, 0) >= len(rows[0]):
            unreached = f"has {name} = {marks[name]}, which the rows compared do not reach"
            reasons |= dict.fromkeys(layouts, unreached)
    if sum(map(len, rows)) <= _context(model.config) and _own_mask(model):
        reasons[RowLayout.UNPADDED] = "has a mask of its own, as large as its context"
    with _only_smallest(model) as parameters:
        alone = _sound(model, rows, parameters)
        laid = lay_out(rows, model.device)
        for way in RowLayout:
            layout = Layout(rows=way, boundary=boundary)
            if way not in reasons:
                why = _difference(model, laid, layout, alone, parameters)
                if why is None:
                    break
                reasons[way] = why
        else:
            raise Infeasible(f"{family} cannot be read row by row: it {reasons[RowLayout.SINGLE]}")
    prompts = [row.ids[:-ANSWERED] for row in rows[:4]]
    batched = way is not RowLayout.SINGLE and (is_encoder(model) or _answers_alike(model, prompts, boundary))
    why = f"{family} {reasons[RowLayout.UNPADDED]}" if reasons else ""
    return Layout(rows=way, batched_prompts=batched, boundary=boundary, why=why)


def probe_rows(model: PreTrainedModel, *, most_tokens: int | None = None) -> list[Tokens]:
    """Return rows of random tokens: a long one, beyond the model's windows, a short and a middle one, and more."""
    lengths = _lengths(_marks(model.config).values(), _context(model.config), most_tokens or _budget(model))
    return [_row(model, length, seed) for seed, length in enumerate(lengths)]


def _budget(model: PreTrainedModel) -> int:
    """Return the most tokens of a probe, so that a large model is not busy for long."""
    return max(LEAST_TOKENS, min(MOST_TOKENS, WORK // model.num_parameters()))


def _marks(config: PretrainedConfig) -> dict[str, int]:
    """Return the numbers of tokens after which the model reads a longer row in another way, by setting.

    `longrope` is among them, with the original context, where positions depend on the longest row of a call.
    """
    text = config.get_text_config()
    found = {name: value for name in _SETTINGS if isinstance(value := getattr(text, name, None), int) and value > 0}
    rope = getattr(text, "rope_parameters", None) or {}
    for settings in (rope, *(each for each in rope.values() if isinstance(each, dict))):
        original = settings.get(_ORIGINAL) or found.get(_ORIGINAL)
        if original:
            found[_ORIGINAL] = original
            if settings.get("rope_type") == "longrope":
                found["longrope"] = original
    return {name: value for name, value in found.items() if value < _context(config)}


def _context(config: PretrainedConfig) -> float:
    """Return the longest row in tokens; infinity for a model without positions."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None) or 0
    return found if found > 0 else math.inf  # XLNet's is -1


def _lengths(marks: Iterable[int], context: float, budget: int) -> list[int]:
    """Return the lengths of a long, a short, a middle and a second long row, and more until they exceed the context.

    Both long ones are beyond the largest mark, so that the second is padded there; all as far as the budget allows.
    """
    reached = max((mark for mark in marks if 2.5 * mark + 65 <= budget), default=0)
    wanted = (max(24, reached + 9), 8, max(13, reached // 2 + 3), max(20, reached + 4))
    first = [int(min(length, context)) for length in wanted]
    left = context + 1 - sum(first)
    return first + ([first[0]] * math.ceil(left / first[0]) if 0 < left <= budget - sum(first) else [])


def _own_mask(model: PreTrainedModel) -> bool:
    """Return whether the model has a square buffer over its context (GPT-Neo's causal mask), too small for more."""
    context = _context(model.config)
    return any(b.ndim >= 2 and b.shape[-1] == b.shape[-2] == context for b in model.buffers())


def _row(model: PreTrainedModel, length: int, seed: int) -> Tokens:
    """Return a row of random tokens, none of them special."""
    text = model.config.get_text_config()
    special = {value for name, value in text.to_dict().items() if name.endswith("token_id") and isinstance(value, int)}
    drawn = torch.randint(text.vocab_size, (2 * length,), generator=torch.Generator().manual_seed(seed)).tolist()
    ids = tuple([id_ for id_ in drawn if id_ not in special][:length])
    if is_encoder(model):
        return Masked(ids=ids, labels=ids, target=(True,) * length, target_bytes=0, mask=0)
    return Tokens(ids=ids, target=(False, *[True] * (length - 1)), target_bytes=0)


@contextmanager
def _only_smallest(model: PreTrainedModel) -> Iterator[list[Parameter]]:
    """Within this context only the smallest parameters require gradients; yields them."""
    every = list(model.parameters())
    required = [parameter.requires_grad for parameter in every]
    chosen: list[Parameter] = []
    numbers = 0
    for parameter in sorted(every, key=lambda parameter: parameter.numel()):
        numbers += parameter.numel()
        if (numbers <= COMPARED or not chosen) and parameter.is_floating_point():
            chosen.append(parameter)
    try:
        for parameter in every:
            parameter.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
        yield chosen
    finally:
        for parameter, before in zip(every, required, strict=True):
            parameter.requires_grad_(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """Log-probabilities of the probe's targets [N], and the gradients of a weighted sum of them."""

    logp_N: torch.Tensor
    gradients: list[torch.Tensor]


def _seen(logits_NV: torch.Tensor, label_N: torch.Tensor, parameters: Sequence[Parameter]) -> _Seen:
    logp_N = -cross_entropy(logits_NV.float(), label_N, reduction="none")
    weight_N = torch.linspace(0.5, 1.5, len(label_N), device=logp_N.device)
    found = torch.autograd.grad((logp_N * weight_N).sum(), list(parameters), allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return _Seen(logp_N=logp_N.detach(), gradients=gradients)


def _sound(model: PreTrainedModel, rows: Sequence[Tokens], parameters: Sequence[Parameter]) -> _Seen:
    """Return what plain passes over one row each give. Raises Infeasible unless the scores can be trusted."""
    family = type(model).__name__
    try:
        plain = [_plain(model, row.ids) for row in rows]
        changed_TV = None if is_encoder(model) else _plain(model, (*rows[0].ids[:-2], *rows[1].ids[:2]))
        logits_NV = torch.cat(
            [each[[position for position, _ in row.predictions()]] for each, row in zip(plain, rows, strict=True)]
        )
        label_N = torch.tensor([label for row in rows for _, label in row.predictions()], device=model.device)
        alone = _seen(logits_NV, label_N, parameters)
    except Exception as error:  # any family's code may fail in any way
        raise Infeasible(f"{family} cannot be read: it {_failure(error)}") from error
    if not all(tensor.isfinite().all() for tensor in (alone.logp_N, *alone.gradients)):
        raise Infeasible(f"{family} cannot be trained: its scores or gradients are not finite")
    if not any(gradient.any() for gradient in alone.gradients):
        raise Infeasible(f"{family} cannot be trained: no gradient reaches its parameters")
    if changed_TV is not None and _apart(plain[0][:-2].detach(), changed_TV[:-2].detach()):
        raise Infeasible(f"{family} is not a causal language model: its scores depend on the tokens that follow")
    return alone


def _plain(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """Return the logits of an ordinary forward pass over one row: [T, V]."""
    reading = {} if is_encoder(model) else {"use_cache": False}
    logits_TV: torch.Tensor = model(input_ids=torch.tensor([list(ids)], device=model.device), **reading).logits[0]
    return logits_TV


def _difference(
    model: PreTrainedModel, rows: UnpaddedRows, layout: Layout, alone: _Seen, parameters: Sequence[Parameter]
) -> str | None:
    """Return what goes wrong if the rows are read in this layout; None if nothing does."""
    try:
        with recording() as called:
            together = _seen(logits(model, rows, layout), rows.label_N, parameters)
    except Exception as error:  # any family's code may fail in any way on arguments that it does not know
        return _failure(error)
    if _apart(together.logp_N, alone.logp_N):
        return "scores rows differently together than alone"
    scale = max(float(gradient.abs().max()) for gradient in alone.gradients)
    for ours, theirs in zip(together.gradients, alone.gradients, strict=True):
        if float((ours - theirs).abs().max()) > GRADIENT * (float(theirs.abs().max()) + 0.01 * scale):
            return "has other gradients for rows together than alone"
    if layout.rows is RowLayout.UNPADDED and not called:
        return "has attention of its own, which takes rows end to end at the cost of a mask over all of them"
    if layout.rows is RowLayout.UNPADDED and called == {None} and _window(model) >= max(rows.lengths):
        return f"keeps its window of {_window(model)} tokens from the attention, and no row compared is longer"
    return None


def _window(model: PreTrainedModel) -> int:
    """Return the longest sliding window within the context; 0 without one."""
    marks = _marks(model.config)
    return max((marks[name] for name in _WINDOWS if name in marks), default=0)


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Return whether scores differ by more than rounding, measured against how much they vary.

    So a leak is seen in a model of random weights too, whose scores are almost all the same.
    """
    limit = VALUE * float(theirs.std()) + ROUNDING
    return not float((ours - theirs).abs().max()) <= limit


@torch.no_grad()
def _answers_alike(model: PreTrainedModel, prompts: Sequence[Sequence[int]], boundary: int | None) -> bool:
    """Return whether greedy answers to prompts padded on the left have the scores of each prompt's own."""
    kept = [ids for ids in prompts if boundary is None or len(ids) + ANSWERED <= boundary]
    longest = max(map(len, kept))
    try:
        alone = [_answer(model, [list(ids)], [0])[0] for ids in kept]
        padding = [longest - len(ids) for ids in kept]
        pad_id = getattr(model.config, "pad_token_id", None) or 0
        filled = [[pad_id] * pad + list(ids) for ids, pad in zip(kept, padding, strict=True)]
        together = _answer(model, filled, padding)
    except Exception:  # any family's code may fail in any way; each prompt is then answered alone
        return False
    return not any(_apart(ours_KV, theirs_KV) for ours_KV, theirs_KV in zip(together, alone, strict=True))


def _answer(model: PreTrainedModel, ids: list[list[int]], padding: list[int]) -> list[torch.Tensor]:
    """Return the logits of the answer to each prompt: [ANSWERED, V]."""
    mask_BT = torch.tensor([[0] * pad + [1] * (len(row) - pad) for row, pad in zip(ids, padding, strict=True)])
    config = GenerationConfig(
        max_new_tokens=ANSWERED,
        min_new_tokens=ANSWERED,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    generator: Any = model  # transformers' types hide `generate` of an auto model
    own, generator.generation_config = generator.generation_config, GenerationConfig()
    try:
        output = generator.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=mask_BT.to(model.device),
            generation_config=config,
        )
    finally:
        generator.generation_config = own
    return list(torch.stack(output.logits, 1).float())


def _failure(error: Exception) -> str:
    text = error.message if isinstance(error, Infeasible) else f"{type(error).__name__}: {error}"
    return f"fails with {text.splitlines()[0]}"
