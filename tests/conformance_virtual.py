"""What updates that add virtual tokens keep to: they train an input and leave the model as it is."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from peft import PeftModel

from luthier.algorithms import Algorithm, Dpo, Orpo, Sft
from luthier.design import Design, Optimiser, Stage
from luthier.errors import Infeasible
from luthier.updates import Update
from tests.conformance_updates import IDS, PLAIN, SEED, Curve, examples, tensors
from tests.covering import params, proved_by
from tests.textbook import largest_difference
from workers.cache import Base
from workers.train import updates
from workers.train.data.padding_free import lay_out
from workers.train.data.tokenize import Tokens
from workers.train.forward import target_logps
from workers.train.loop import train
from workers.train.rollouts.sampling import generate
from workers.train.updates import Applied

ALGORITHMS: tuple[Algorithm, ...] = (Sft(), Dpo(beta=0.5), Orpo())


def textbook(model: PeftModel) -> torch.Tensor:
    """Log-probability of each of IDS but the first, by PEFT's own forward."""
    ids_T = torch.tensor(IDS)
    logits_TV = model(input_ids=ids_T[None]).logits[0, -len(IDS) : -1]
    return logits_TV.log_softmax(-1).gather(1, ids_T[1:, None]).squeeze(1)


@dataclass(frozen=True, kw_only=True)
class Run:
    at_start: dict[str, torch.Tensor]
    losses: list[float]
    applied: Applied


class VirtualConformance:
    update: ClassVar[Update]
    learning_rate: ClassVar[float]
    falls_to: ClassVar[float] = 0.9  # of the first steps' loss

    def __init_subclass__(cls) -> None:
        cls.pytestmark = [pytest.mark.xdist_group(cls.__name__)]  # what it trains is for all its tests

    @pytest.fixture(
        scope="class",
        params=params(ALGORITHMS, lambda made: proved_by(made.kind, "virtual tokens"), lambda made: made.kind),
    )
    @classmethod
    def run(cls, request: pytest.FixtureRequest, tiny: Base) -> Run:
        recipe = Optimiser(learning_rate=cls.learning_rate, batch_size=4, epochs=12.0)
        stage = Stage(algorithm=request.param, update=cls.update, optimiser=recipe)
        curve, learned = Curve(), examples(tiny, request.param)
        planned = Design(architecture=PLAIN, stages=(stage,))
        start = tensors(updates.apply(copy.deepcopy(tiny.model), cls.update, SEED).model)
        trained = train(copy.deepcopy(tiny.model), planned, lambda _: learned, seed=SEED, watch=curve)
        return Run(at_start=start, losses=curve.losses, applied=trained.applied)

    def test_the_virtual_tokens_moved_and_all_else_stayed_bit_for_bit(self, run: Run) -> None:
        ending = tensors(run.applied.model)
        moved = {name for name, tensor in run.at_start.items() if not torch.equal(tensor, ending[name])}
        assert moved == set(run.applied.trainable()) == {"prompt_encoder.default.embedding.weight"}

    def test_the_loss_fell(self, run: Run) -> None:
        assert sum(run.losses[-3:]) < self.falls_to * sum(run.losses[:3])

    @torch.no_grad()
    def test_unpadded_rows_score_as_peft_scores_each_alone(self, run: Run) -> None:
        own = Tokens(ids=IDS, target=(False, *[True] * (len(IDS) - 1)), target_bytes=0)
        other = Tokens(ids=IDS[:4], target=(False, False, True, True), target_bytes=0)
        rows = lay_out([other, own, other], torch.device("cpu"))
        expected = textbook(run.applied.model)
        found = target_logps(run.applied.model, rows)
        assert largest_difference(found, torch.cat([expected[1:3], expected, expected[1:3]])) < 1e-4

    @torch.no_grad()
    def test_generation_is_greedy_whatever_is_asked_beside_it(self, run: Run, tiny: Base) -> None:
        prompts = [list(range(30, 39)), [7, 8, 9]]
        answers = generate(run.applied.model, tiny.tokenizer, prompts, 6)
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = list(prompt)
            for _ in range(6):
                ids.append(int(run.applied.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == tiny.tokenizer.eos_token_id:
                    break
            assert answer == tiny.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()

    @torch.no_grad()
    def test_peft_loads_the_adapter_onto_the_base(self, run: Run, tiny: Base, tmp_path: Path) -> None:
        assert run.applied.save_adapter(tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        loaded = PeftModel.from_pretrained(copy.deepcopy(tiny.model), tmp_path).eval()
        assert largest_difference(textbook(loaded), textbook(run.applied.model)) < 1e-6

    def test_it_cannot_be_merged_and_says_so(self, run: Run) -> None:
        assert not run.applied.mergeable
        with pytest.raises(Infeasible, match="cannot be merged"):
            run.applied.merge()
