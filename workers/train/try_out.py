"""Try a weight update or an edit on a model, as a trial would use it: train, merge, save and load again.

What a family's code does with adapters, with fewer layers or with a file of merged weights is found out this way,
on a small model of the family. Nothing here is part of a trial.
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from luthier.algorithms import Algorithm, Mlm, Sft
from luthier.design import Architecture, Optimiser
from luthier.errors import LuthierError
from luthier.updates import Full, Update
from workers.train import updates
from workers.train.algorithms import objective
from workers.train.architectures import build
from workers.train.data.padding_free import lay_out
from workers.train.data.tokenize import Tokens
from workers.train.forward import is_encoder, layout, plain_model, target_logps
from workers.train.layout_probe import probe_rows, row_layout
from workers.train.layouts import RowLayout
from workers.train.stage_trainer import StageTrainer
from workers.train.updates import Applied

STEPS: Final = 2  # in the first, an adapter that starts as a product with zero moves in one factor only
RATE: Final = 1e-2
SEED: Final = 0
CLOSE: Final = 1e-4  # of log-probabilities, in nats
_ADAPTER: Final = re.compile(r"\.(?:lora|vera|randlora|oft|ia3)_")  # in the names of PEFT's parameters
# What the libraries say of a failure, as a pattern, and what it means.
_KNOWN: Final[Mapping[str, str]] = {
    r"does not require grad": "trains no parameter that the scores depend on",
    r"'Parameter' and 'NoneType'": "needs a gradient in every layer that it adapts, and a layer of this architecture "
    "gets none",
    r"is invalid for input of size": "cannot adapt a layer of this architecture, whose inputs have another form than "
    "PEFT expects",
    r"must match the size of tensor|shapes cannot be multiplied": "cannot adapt a layer of this architecture, which "
    "computes more than the product with its weights",
    r"num_attention_heads|'int' and 'NoneType'": "needs sizes of the attention that PEFT does not find in the "
    "configuration of this architecture",
}
_EXPERT: Final = "expert"  # in the names of parameters that may get no gradient, as no token reached them


def try_update(model: PreTrainedModel, update: Update) -> str | None:
    """Return why a weight update does not work on this model; None if it does. The model is not changed.

    The engine takes two optimiser steps on a few rows. Then the loss must be finite, the update's parameters and no
    others must have moved, and the merged weights and the adapter, loaded again by plain transformers and PEFT, must
    score the rows alike.
    """
    try:
        return _update_fails(model, update)
    except LuthierError as error:
        return error.message
    except Exception as error:  # any family's code may fail in any way
        return _failure(update.kind, error)


def try_edit(model: PreTrainedModel, edit: Architecture) -> str | None:
    """Return why an edit of the architecture does not work on this model; None if it does. The model is not changed.

    The edited model must read rows as the model does, or with less care, be trained by the engine, and load again by
    plain transformers.
    """
    try:
        edited = build(model, edit, calibration=[row.ids for row in probe_rows(model)])
        by_care = list(RowLayout)
        if by_care.index(row_layout(edited)) > by_care.index(layout(model).rows):
            return f"{type(edited).__name__} cannot read rows as before once it is edited"
        return _update_fails(edited, Full())
    except LuthierError as error:
        return error.message
    except Exception as error:  # any family's code may fail in any way
        return _failure("this edit", error)


def _update_fails(model: PreTrainedModel, update: Update) -> str | None:
    layout(model)  # found out now, and copied
    rows = probe_rows(model)
    learning = _learning(model, rows)
    applied = updates.apply(copy.deepcopy(model), update, SEED)
    before = _tensors(applied)
    trainer = _trainer(applied, rows)
    reached: set[str] = set()
    while not trainer.done:
        hooks = [
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: reached.add(name) if p.grad.any() else None
            )
            for name, parameter in trainer.parameters.items()
        ]
        trainer.advance()  # raises TrialFailed if the loss is not finite
        for hook in hooks:
            hook.remove()
    trained = applied.trainable().keys()
    if still := sorted(name for name in trained - reached if _learns(name, learning)):
        return f"{update.kind} gives no gradient to {still[0]}"
    after = _tensors(applied)
    if strayed := sorted(n for n, t in before.items() if n not in trained and not torch.equal(t, after[n])):
        return f"{update.kind} changed {strayed[0]}, which it does not train"
    if not any(not torch.equal(before[name], after[name]) for name in trained):
        return f"{update.kind} moved none of its parameters"
    with tempfile.TemporaryDirectory(prefix="luthier-try-") as folder:
        return _reload_fails(model, update, applied, rows, Path(folder))


def _learning(model: PreTrainedModel, rows: Sequence[Tokens]) -> set[str]:
    """Return the names of the model's own parameters that a gradient reaches: the weights of all layers, but not the
    biases that balance experts."""
    applied = updates.apply(copy.deepcopy(model), Full(), SEED)
    with torch.enable_grad():
        target_logps(applied.model, lay_out(list(rows), applied.model.device)).sum().backward()
    return {name for name, p in applied.trainable().items() if p.grad is not None and p.grad.any()}


def _learns(name: str, learning: set[str]) -> bool:
    """Return whether a parameter, or that of an adapter on a layer, should get a gradient. Not if no token reached its
    expert, or if the layer has none without the adapter."""
    layer = _ADAPTER.split(name, 1)[0]
    return _EXPERT not in name and (name in learning or f"{layer}.weight" in learning)


def _reload_fails(
    model: PreTrainedModel, update: Update, applied: Applied, rows: Sequence[Tokens], folder: Path
) -> str | None:
    """Save what was trained, load it with plain transformers and PEFT, and compare the scores."""
    family = AutoModelForMaskedLM if is_encoder(model) else AutoModelForCausalLM
    ours = _engine_scores(applied, rows)
    if applied.save_adapter(folder / "adapter"):
        loaded = PeftModel.from_pretrained(copy.deepcopy(model), folder / "adapter").eval()
        if _differ(_plain_scores(loaded, rows), ours):
            return f"the adapter of {update.kind} scores differently when PEFT loads it"
    if not applied.mergeable:
        return None
    merged = applied.merge()
    if _differ(_plain_scores(merged, rows), ours):
        return f"{update.kind} scores differently once merged"
    merged.save_pretrained(folder / "merged")
    again = family.from_pretrained(folder / "merged", dtype=torch.float32).eval()
    if _differ(_plain_scores(again, rows), ours):
        return f"the merged weights of {update.kind} score differently when transformers loads them"
    return None


def _trainer(applied: Applied, rows: Sequence[Tokens]) -> StageTrainer:
    algorithm: Algorithm = Mlm() if is_encoder(plain_model(applied.model)) else Sft()
    recipe = Optimiser(learning_rate=RATE, batch_size=len(rows), epochs=float(STEPS), warmup=0.0)
    return StageTrainer(
        applied=applied,
        objective=objective(algorithm),
        examples=[(row,) for row in rows],
        optimiser=recipe,
        seed=SEED,
    )


def _tensors(applied: Applied) -> dict[str, torch.Tensor]:
    """Return copies of all parameters and buffers."""
    named = (*applied.model.named_parameters(), *applied.model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in named}


@torch.no_grad()
def _engine_scores(applied: Applied, rows: Sequence[Tokens]) -> torch.Tensor:
    return target_logps(applied.model, lay_out(list(rows), applied.model.device))


@torch.no_grad()
def _plain_scores(model: PreTrainedModel | PeftModel, rows: Sequence[Tokens]) -> torch.Tensor:
    """Return the log-probabilities of the targets by ordinary forward passes over one row each: [N]."""
    scores = []
    for row in rows:
        places, labels = zip(*row.predictions(), strict=True)
        logits_TV = model(input_ids=torch.tensor([row.ids], device=model.device)).logits[0].float()
        label_N = torch.tensor(labels, device=model.device)
        own_TV = logits_TV[-len(row.ids) :]  # PEFT puts virtual tokens before the row's own
        scores.append(-cross_entropy(own_TV[list(places)], label_N, reduction="none"))
    return torch.cat(scores)


def _differ(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return not float((ours - theirs).abs().max()) <= CLOSE * max(1.0, float(theirs.abs().max()))


def _failure(what: str, error: Exception) -> str:
    """Return why something does not work, in words where the error is a known one."""
    said = str(error).strip()
    for known, words in _KNOWN.items():
        if re.search(known, said):
            return f"{what} {words}"
    first = f": {said.splitlines()[0]}" if said else ""
    return f"{what} does not work with the code of this architecture ({type(error).__name__}{first})"
