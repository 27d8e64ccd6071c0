"""What every weight update keeps to. A subclass names an update and says which parameters it moves.

The update is put on the tiny model (as it is, and edited), trained for some steps by the one loop with every learning
algorithm, saved, merged and loaded again by plain transformers and PEFT.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from luthier.algorithms import Algorithm, Dpo, Mlm, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.task import DataKind
from luthier.updates import Update
from tests import data_samples
from tests.covering import params, proved_by
from tests.textbook import largest_difference, logps
from workers.cache import Base
from workers.train import updates
from workers.train.algorithms import Example, objective
from workers.train.architectures import build
from workers.train.data.tokenize import Renderer
from workers.train.loop import Progress, train
from workers.train.updates import Applied

IDS = (1, 55, 901, 7, 7, 3000, 12, 2, 1, 440)
SEED = 7
PLAIN, EDITED = Architecture(base="tiny"), Architecture(base="tiny", layers=4, kv_heads=2)
# One of each make; all others are tried with every update by `tests.cells`.
RUNS = [(PLAIN, Sft()), (PLAIN, Dpo(beta=0.5)), (PLAIN, Mlm(mask=0.4)), (EDITED, Sft())]
Planned = tuple[Architecture, Algorithm]


@dataclass
class Curve:
    """Looks on, and remembers the losses."""

    losses: list[float] = field(default_factory=list)

    def after_step(self, progress: Progress) -> None:
        self.losses.append(progress.report.values["train_loss"])


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training from before its first step to the model that is exported."""

    base: PreTrainedModel
    at_start: dict[str, torch.Tensor]
    at_end: dict[str, torch.Tensor]
    trainable: set[str]
    losses: list[float]
    logps: torch.Tensor
    adapter: Path | None
    merged: PreTrainedModel


def _name(planned: Planned) -> str:
    return planned[1].kind + (" edited" if planned[0].edited else "")


def tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Copies of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def examples(tiny: Base, algorithm: Algorithm) -> list[Example]:
    if isinstance(algorithm, Mlm):
        window = Renderer(tiny.tokenizer, window=48, max_tokens=48)
        learn = objective(algorithm)
        return [example for row in data_samples.text(8) for example in learn.examples(row, DataKind.TEXT, window)]
    render = Renderer(tiny.tokenizer, window=512, max_tokens=512)
    learn = objective(algorithm)
    return [
        example for row in data_samples.preference(8) for example in learn.examples(row, DataKind.PREFERENCE, render)
    ]


@torch.no_grad()
def scores(model: PreTrainedModel) -> torch.Tensor:
    return logps(model, [token % model.config.vocab_size for token in IDS])


class UpdateConformance:
    """Inherit, name the class `Test…`, and fill in the four below."""

    update: ClassVar[Update]
    learning_rate: ClassVar[float]
    encoder_pace: ClassVar[float] = 1.0  # the learning rate on an encoder, relative to that
    adapter: ClassVar[bool]
    drawn: ClassVar[bool] = False  # whether anything of it is drawn at random

    def __init_subclass__(cls) -> None:
        cls.pytestmark = [pytest.mark.xdist_group(cls.__name__)]  # what it trains is for all its tests

    @classmethod
    def base(cls, tiny: PreTrainedModel) -> PreTrainedModel:
        """The model that it is put on."""
        return tiny

    @classmethod
    def encoder_base(cls, encoder: PreTrainedModel) -> PreTrainedModel:
        """The encoder that it is put on."""
        return encoder

    def moves(self, name: str, layers: int) -> bool:
        """Whether the update moves the parameter or buffer of this name in a model of so many layers."""
        raise NotImplementedError

    def moves_encoder(self, name: str, layers: int) -> bool:
        """The same of an encoder."""
        return self.moves(name, layers)

    def undone(self, name: str, ending: torch.Tensor) -> bool:
        """Whether the update has put a parameter that moved back to where it started."""
        return False

    def moved(self, name: str, base: PreTrainedModel) -> bool:
        moves = self.moves if base.can_generate() else self.moves_encoder
        return moves(name, base.config.num_hidden_layers)

    @classmethod
    def applied(cls, model: PreTrainedModel, *, seed: int = SEED) -> Applied:
        return updates.apply(copy.deepcopy(model), cls.update, seed)

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Each update is trained with sft, and LoRA in every other way too; `make test-all` trains all in all ways."""
        if "run" in metafunc.fixturenames:
            metafunc.parametrize("run", params(RUNS, cls._proves, _name), indirect=True, scope="class")

    @classmethod
    def _proves(cls, planned: Planned) -> set[str]:
        architecture, algorithm = planned
        update = cls.update.kind if getattr(cls.update, "placement", "all") == "all" else "placed"
        if architecture.edited and update != "lora":
            return set()
        return proved_by(algorithm.kind, update, edit="edited" if architecture.edited else "")

    @pytest.fixture(scope="class")
    @classmethod
    def run(
        cls, request: pytest.FixtureRequest, tiny: Base, encoder: Base, tmp_path_factory: pytest.TempPathFactory
    ) -> Run:
        architecture, algorithm = request.param
        masked = isinstance(algorithm, Mlm)
        base = build(cls.encoder_base(encoder.model) if masked else cls.base(tiny.model), architecture)
        recipe = Optimiser(learning_rate=cls.learning_rate, batch_size=4, epochs=5.0)
        if masked:
            recipe = Optimiser(learning_rate=cls.encoder_pace * cls.learning_rate, batch_size=4, epochs=20.0)
        design = Design(
            architecture=architecture, stages=(Stage(algorithm=algorithm, update=cls.update, optimiser=recipe),)
        )
        curve = Curve()
        learned = examples(encoder if masked else tiny, algorithm)
        trained = train(copy.deepcopy(base), design, lambda _: learned, seed=SEED, watch=curve).applied
        folder = tmp_path_factory.mktemp("adapter")
        ending, trainable, reached = tensors(trained.model), set(trained.trainable()), scores(trained.model)
        has_adapter = trained.save_adapter(folder)
        return Run(
            base=base,
            at_start=tensors(cls.applied(base).model),
            at_end=ending,
            trainable=trainable,
            losses=curve.losses,
            logps=reached,
            adapter=folder if has_adapter else None,
            merged=trained.merge(),
        )

    def test_it_starts_where_the_base_is(self, run: Run) -> None:
        assert largest_difference(scores(self.applied(run.base).model), scores(run.base)) < 1e-5

    def test_the_seed_decides_how_it_starts(self, run: Run) -> None:
        again, other = tensors(self.applied(run.base).model), tensors(self.applied(run.base, seed=SEED + 1).model)
        assert all(torch.equal(tensor, again[name]) for name, tensor in run.at_start.items())
        drawn = any(not torch.equal(tensor, other[name]) for name, tensor in run.at_start.items())
        assert drawn == self.drawn

    def test_what_should_move_moved_and_all_else_stayed_bit_for_bit(self, run: Run) -> None:
        assert run.at_end.keys() == run.at_start.keys()
        moved = {name for name, tensor in run.at_start.items() if not torch.equal(tensor, run.at_end[name])}
        expected = {name for name in run.at_start if self.moved(name, run.base)}
        assert moved == {name for name in expected if not self.undone(name, run.at_end[name])}
        assert expected == run.trainable

    def test_the_loss_fell(self, run: Run) -> None:
        if run.base.can_generate():
            assert sum(run.losses[-3:]) < 0.9 * sum(run.losses[:3])
        else:  # other tokens are masked in each step, and the tiny encoder makes little of what stands around them
            quarter = len(run.losses) // 4
            assert sum(run.losses[-quarter:]) < 0.99 * sum(run.losses[:quarter])

    def test_merging_gives_a_plain_model_that_computes_the_same(self, run: Run) -> None:
        assert type(run.merged) is type(run.base)
        assert run.merged.state_dict().keys() == run.base.state_dict().keys()
        assert run.merged.config.to_dict() == run.base.config.to_dict()
        assert [type(module) for module in run.merged.modules()] == [type(module) for module in run.base.modules()]
        assert largest_difference(scores(run.merged), run.logps) < 1e-4
        assert largest_difference(scores(run.base), run.logps) > 1e-2

    def test_a_merged_model_can_take_an_update_again(self, run: Run) -> None:
        assert largest_difference(scores(self.applied(run.merged).model), scores(run.merged)) < 1e-5

    def test_plain_transformers_saves_and_loads_the_merged_model(self, run: Run, tmp_path: Path) -> None:
        run.merged.save_pretrained(tmp_path)
        family = AutoModelForCausalLM if run.base.can_generate() else AutoModelForMaskedLM
        loaded = family.from_pretrained(tmp_path)
        assert torch.equal(scores(loaded), scores(run.merged))
        assert not any(file.suffix in {".bin", ".pt", ".pkl"} for file in tmp_path.iterdir())

    def test_peft_loads_the_adapter_onto_the_base(self, run: Run) -> None:
        assert (run.adapter is not None) == self.adapter
        if run.adapter is not None:
            assert {file.name for file in run.adapter.iterdir()} == {
                "adapter_config.json",
                "adapter_model.safetensors",
            }
            loaded = PeftModel.from_pretrained(copy.deepcopy(run.base), run.adapter).eval()
            assert largest_difference(scores(loaded.get_base_model()), run.logps) < 1e-5
