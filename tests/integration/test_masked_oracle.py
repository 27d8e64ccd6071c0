"""transformers is the oracle of masked language modelling, since TRL has no trainer for it."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DataCollatorForLanguageModeling

from luthier.algorithms import Mlm
from luthier.design import Optimiser
from luthier.updates import Full
from tests import data_samples
from tests.textbook import first_step
from workers.cache import Base
from workers.train import updates
from workers.train.algorithms.base import Context
from workers.train.algorithms.supervised import MaskedLanguageModelling, mask_tokens
from workers.train.data.tokenize import Masked, Renderer
from workers.train.stage_trainer import StageTrainer

VOCABULARY = 2048


def windows(encoder: Base) -> list[Masked]:
    render = Renderer(encoder.tokenizer, window=32, max_tokens=32)
    return [window for row in data_samples.text(4) for window in render.bidirectional(row["text"])]


def test_loss_and_gradients_are_those_of_the_models_own_masked_loss(
    encoder: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(encoder.model)
    learn = MaskedLanguageModelling(Mlm(mask=0.3), Context())
    examples = [(window,) for window in windows(encoder)]
    recipe = Optimiser(learning_rate=1e-3, batch_size=len(examples))
    trainer = StageTrainer(
        applied=updates.apply(model, Full(), 0), objective=learn, examples=examples, optimiser=recipe, seed=5
    )
    masked = [window for (window,) in learn.batch([examples[i] for i in trainer.order], trainer).examples]
    longest = max(map(len, masked))
    seen_BT = torch.zeros(len(masked), longest, dtype=torch.long)
    labels_BT, mask_BT = torch.full_like(seen_BT, -100), torch.zeros_like(seen_BT)
    for b, window in enumerate(masked):
        assert isinstance(window, Masked)
        seen_BT[b, : len(window)], mask_BT[b, : len(window)] = torch.tensor(window.ids), 1
        for t, is_target in enumerate(window.target):
            labels_BT[b, t] = window.labels[t] if is_target else -100
    oracle = copy.deepcopy(encoder.model).requires_grad_(True)
    loss = oracle(input_ids=seen_BT, attention_mask=mask_BT, labels=labels_BT).loss
    loss.backward()
    report, gradients = first_step(trainer, monkeypatch)
    assert report.values["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in oracle.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def shares(seen_T: torch.Tensor, labels_T: torch.Tensor, real_T: torch.Tensor, mask: int) -> dict[str, float]:
    """Of the tokens that may be chosen those that were, and what became of them."""
    chosen = labels_T != -100
    hidden = chosen & (seen_T == mask)
    kept = chosen & (seen_T == real_T)
    other = chosen & ~hidden & ~kept
    count = float(chosen.sum())
    return {
        "chosen": count / len(real_T),
        "hidden": float(hidden.sum()) / count,
        "replaced": float(other.sum()) / count,
        "kept": float(kept.sum()) / count,
    }


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_masks_are_drawn_as_transformers_collator_draws_them(share: float, encoder: Base) -> None:
    generator = torch.Generator().manual_seed(1)
    real_T = torch.randint(5, VOCABULARY, (40_000,), generator=generator)
    ids = tuple(real_T.tolist())
    mask = encoder.tokenizer.mask_token_id
    window = Masked(ids=ids, labels=ids, target=(True,) * len(ids), target_bytes=0, mask=mask)
    ours = mask_tokens(window, share, VOCABULARY, generator)
    labels_T = torch.tensor([label if target else -100 for label, target in zip(ours.labels, ours.target, strict=True)])
    collator = DataCollatorForLanguageModeling(encoder.tokenizer, mlm_probability=share, seed=3)
    theirs = collator([{"input_ids": list(ids)}])
    found = shares(torch.tensor(ours.ids), labels_T, real_T, mask)
    assert found == pytest.approx(shares(theirs["input_ids"][0], theirs["labels"][0], real_T, mask), abs=0.02)
    assert found == pytest.approx({"chosen": share, "hidden": 0.8, "replaced": 0.1, "kept": 0.1}, abs=0.02)
