"""A trial that is resumed from its checkpoint ends bit for bit like an uninterrupted one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from luthier.algorithms import Algorithm, Clm, Dpo, Gkd, Grpo, Ipo, Kto, Mlm, Orpo, Raft, Rloo, Sft, Simpo
from luthier.design import Architecture, Design, Optimiser, Schedule, Stage
from luthier.task import DataKind
from luthier.updates import (
    AdaLora,
    BitFit,
    Dora,
    Full,
    Ia3,
    LayerNorm,
    Lora,
    LoraPlus,
    Oft,
    Pissa,
    Prefix,
    Prompt,
    RandLora,
    RsLora,
    TopLayers,
    Update,
    Vera,
)
from tests import data_samples
from tests.biased import biased
from tests.covering import params
from tests.playing import HAS_D, prompts, world
from workers.cache import Base
from workers.train import checkpoint
from workers.train.algorithms import Example, Teacher, objective
from workers.train.architectures import build
from workers.train.checkpoint import Checkpoint, Position
from workers.train.data.tokenize import Renderer
from workers.train.loop import Progress, Trained, train

ROWS = data_samples.preference(6)  # every algorithm of decoders can learn from these
TEXTS = data_samples.text(6)
UPDATES: list[Update] = [Full(), TopLayers(layers=2), Lora(rank=2), RsLora(rank=2), Dora(rank=2)]
UPDATES += [LayerNorm(), BitFit(), Pissa(rank=2), LoraPlus(rank=2), Vera(rank=4), Ia3(), Oft(block=8), AdaLora(rank=2)]
UPDATES += [RandLora(rank=32)]
UPDATES += [Prompt(tokens=3), Prefix(tokens=3)]
UPDATES += [Lora(rank=2, placement="attention"), Dora(rank=2, placement="mlp")]
ALGORITHMS: list[Algorithm] = [Clm(), Sft(), Dpo(), Ipo(), Simpo(), Orpo(), Kto(), Mlm()]
ALGORITHMS += [Gkd(teacher="tiny", share=0.5)]
CALIBRATION = (tuple(range(100, 130)),)
INFLUENTIAL = Architecture(base="tiny", layers=3, depth_rule="block_influence")
WINDOWED = Architecture(base="tiny", layers=3, window=8)
STRETCHED = Architecture(base="tiny", layers=3, rope_factor=2)
PLAIN, EDITED = Architecture(base="tiny", layers=3), Architecture(base="tiny", layers=2, kv_heads=2)


class Broken(Exception):
    """The worker is gone."""


@dataclass
class Witness:
    """Writes down all that a trial reports; at `breaking_at` (stage, step) saves a checkpoint and breaks off."""

    folder: Path
    breaking_at: tuple[int, int] | None = None
    curve: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    shares: dict[tuple[int, int], float] = field(default_factory=dict)

    def after_step(self, progress: Progress) -> None:
        at = (progress.position.stage, progress.position.step)
        assert at not in self.curve, "no step is taken twice"
        self.curve[at], self.shares[at] = progress.report.values, progress.share
        if at == self.breaking_at:
            checkpoint.save(progress.checkpoint(), self.folder)
            raise Broken


def stage(algorithm: Algorithm, update: Update, *, epochs: float = 1.5, schedule: Schedule = "cosine") -> Stage:
    recipe = Optimiser(
        learning_rate=1e-3, batch_size=2, epochs=epochs, warmup=0.25, weight_decay=0.01, schedule=schedule
    )
    return Stage(algorithm=algorithm, update=update, optimiser=recipe)


def design(*stages: Stage, architecture: Architecture = PLAIN) -> Design:
    return Design(architecture=architecture, stages=stages)


class Trial:
    """One design on fresh copies of one base. Reward maximisers play for a reward that most answers miss."""

    def __init__(self, tiny: Base, planned: Design, folder: Path, base: PreTrainedModel | None = None) -> None:
        self.tiny, self.design, self.folder = tiny, planned, folder
        self.base = base or tiny.model

    def examples(self, planned: Stage) -> Sequence[Example]:
        learn = objective(planned.algorithm)
        if isinstance(planned.algorithm, Grpo | Rloo | Raft):
            return prompts(learn, self.tiny, 6)
        render = Renderer(self.tiny.tokenizer, window=64, max_tokens=128)
        if isinstance(planned.algorithm, Mlm):
            return [example for row in TEXTS for example in learn.examples(row, DataKind.TEXT, render)][:6]
        return [example for row in ROWS for example in learn.examples(row, DataKind.PREFERENCE, render)]

    def train(self, witness: Witness, resume: Checkpoint | None = None) -> Trained:
        model = build(self.base, self.design.architecture, CALIBRATION)
        rewards = world(self.tiny, grader=HAS_D, max_new_tokens=3)
        teacher = Teacher(model=self.tiny.model, tokenizer=self.tiny.tokenizer, max_new_tokens=3)
        return train(
            model, self.design, self.examples, seed=11, watch=witness, world=rewards, teacher=teacher, resume=resume
        )

    def unbroken(self) -> tuple[Trained, Witness]:
        witness = Witness(self.folder)
        return self.train(witness), witness

    def broken(self, *breaks: tuple[int, int]) -> tuple[Trained, Witness]:
        """Break off after each of `breaks` in turn; what the one witness of all the parts saw."""
        witness, resume = Witness(self.folder), None
        for witness.breaking_at in breaks:
            with pytest.raises(Broken):
                self.train(witness, resume)
            resume = checkpoint.load(self.folder)
            torch.randn(5)  # another process has drawn other random numbers
        witness.breaking_at = None
        return self.train(witness, resume), witness


def assert_same(one: tuple[Trained, Witness], other: tuple[Trained, Witness]) -> None:
    (trained, witness), (trained_other, witness_other) = one, other
    assert witness.curve == witness_other.curve
    assert witness.shares == witness_other.shares
    assert (trained.tokens, trained.whole_base) == (trained_other.tokens, trained_other.whole_base)
    weights, weights_other = trained.applied.model.state_dict(), trained_other.applied.model.state_dict()
    assert weights.keys() == weights_other.keys()
    assert [name for name in weights if not torch.equal(weights[name], weights_other[name])] == []
    merged, merged_other = trained.judged().state_dict(), trained_other.judged().state_dict()
    assert [name for name in merged if not torch.equal(merged[name], merged_other[name])] == []


# Every update with an algorithm, and every algorithm with an update; `tests.cells` tries all pairs, at one step each,
# and `make test` those of its covering set.
PAIRED = [(update, ALGORITHMS[i % len(ALGORITHMS)]) for i, update in enumerate(UPDATES)]


@pytest.mark.slow
@pytest.mark.parametrize(("update", "algorithm"), PAIRED, ids=lambda member: member.kind)
def test_every_update_and_every_algorithm_resumes_exactly(
    update: Update, algorithm: Algorithm, tiny: Base, encoder: Base, tmp_path: Path
) -> None:
    base = biased(tiny.model) if isinstance(update, BitFit) else tiny.model
    trial = Trial(tiny, design(stage(algorithm, update)), tmp_path, base=base)
    if isinstance(algorithm, Mlm):
        trial = Trial(encoder, design(stage(algorithm, update)), tmp_path)
    step = 1 + (UPDATES.index(update) + ALGORITHMS.index(algorithm)) % 4  # of five
    assert_same(trial.unbroken(), trial.broken((0, step)))


Player = tuple[Algorithm, Update]
PLAYERS: list[Player] = [
    (algorithm, update)
    for algorithm in (Grpo(group=2), Grpo(group=2, beta=0.1), Rloo(group=2), Raft(group=2))
    for update in (Full(), Dora(rank=2), Pissa(rank=2))
]


def named(player: Player) -> str:
    algorithm, update = player
    return f"{algorithm.kind} {getattr(algorithm, 'beta', 0):g}-{update.kind}"


@pytest.mark.parametrize("player", params(PLAYERS, lambda player: set(named(player).split("-")), named))
def test_rollouts_after_a_resume_are_those_of_an_uninterrupted_trial(
    player: Player, tiny: Base, tmp_path: Path
) -> None:
    algorithm, update = player
    trial = Trial(tiny, design(stage(algorithm, update)), tmp_path)
    unbroken = trial.unbroken()
    learnt = [values["rollouts_kept"] > 0 for values in unbroken[1].curve.values()]
    assert any(learnt)
    assert not all(learnt), "a step that teaches nothing is among them"
    assert_same(unbroken, trial.broken((0, 2), (0, 4)))


RECIPES = {
    "sft+dpo on one adapter": design(stage(Sft(), Lora(rank=2), epochs=1), stage(Dpo(), Lora(rank=2), epochs=1)),
    "sft+dpo on all weights": design(stage(Sft(), Full(), epochs=1), stage(Dpo(), Full(), epochs=1)),
    "sft+ipo on one adapter": design(stage(Sft(), Lora(rank=2), epochs=1), stage(Ipo(), Lora(rank=2), epochs=1)),
    "sft+simpo on all weights": design(stage(Sft(), Full(), epochs=1), stage(Simpo(), Full(), epochs=1)),
    "sft+kto on one adapter": design(stage(Sft(), Lora(rank=2), epochs=1), stage(Kto(), Lora(rank=2), epochs=0.5)),
    "an adapter on trained weights": design(stage(Sft(), Full(), epochs=1), stage(Dpo(), Lora(rank=2), epochs=1)),
    "an adapter on another adapter": design(
        stage(Sft(), RsLora(rank=2), epochs=1), stage(Dpo(), Dora(rank=3), epochs=1), architecture=EDITED
    ),
    "the influential layers": design(
        stage(Sft(), Lora(rank=2), epochs=1), stage(Dpo(), Lora(rank=2), epochs=1), architecture=INFLUENTIAL
    ),
    "a window": design(stage(Sft(), Full(), epochs=1), stage(Dpo(), Full(), epochs=1), architecture=WINDOWED),
    "a longer context": design(
        stage(Sft(), Lora(rank=2), epochs=1), stage(Dpo(), Lora(rank=2), epochs=1), architecture=STRETCHED
    ),
    "an adapter that starts from trained weights": design(
        stage(Sft(), Full(), epochs=1), stage(Dpo(), Pissa(rank=2), epochs=1)
    ),
    "ranks that the first stage decides": design(
        stage(Sft(), AdaLora(rank=2), epochs=1), stage(Dpo(), AdaLora(rank=2), epochs=1)
    ),
    "all weights after ranks were decided": design(
        stage(Clm(), AdaLora(rank=2), epochs=1), stage(Sft(), Full(), epochs=1)
    ),
    "sft+dpo on one prompt": design(stage(Sft(), Prompt(tokens=3), epochs=1), stage(Dpo(), Prompt(tokens=3), epochs=1)),
    "sft+ipo on one prefix": design(stage(Sft(), Prefix(tokens=3), epochs=1), stage(Ipo(), Prefix(tokens=3), epochs=1)),
    "averaged weights": design(
        stage(Sft(), Lora(rank=2), epochs=1, schedule="constant"),
        stage(Ipo(), Lora(rank=2), epochs=1, schedule="constant"),
    ),
    "averaged weights after ranks were decided": design(
        stage(Clm(), AdaLora(rank=2), epochs=1, schedule="constant"),
        stage(Kto(), Full(), epochs=0.5, schedule="constant"),
    ),
    "all weights after an adapter": design(stage(Clm(), Lora(rank=2), epochs=1), stage(Sft(), Full(), epochs=1)),
}


def proves(name: str) -> set[str]:
    """What resuming a recipe proves: its second algorithm, the move from one update to the other, and its edit."""
    first, second = RECIPES[name].stages
    architecture = RECIPES[name].architecture
    edits = {edit for edit in ("kv_heads", "window", "rope_factor") if getattr(architecture, edit) is not None}
    updates = f"{first.update.kind}, then {second.update.kind}"
    return {second.algorithm.kind, second.optimiser.schedule, updates, architecture.depth_rule, *edits}


@pytest.mark.parametrize("name", params(RECIPES, proves))
def test_recipes_of_two_stages_resume_exactly_from_any_step(name: str, tiny: Base, tmp_path: Path) -> None:
    """Three steps a stage: broken off amid a stage, and between a stage's last step and the next one's first."""
    trial = Trial(tiny, RECIPES[name], tmp_path)
    assert_same(trial.unbroken(), trial.broken((0, 1), (0, 3), (1, 1), (1, 2), (1, 3)))


def test_three_stages_broken_off_again_and_again_resume_exactly(tiny: Base, tmp_path: Path) -> None:
    planned = design(
        stage(Clm(), TopLayers(layers=1), epochs=1), stage(Sft(), Dora(rank=2), epochs=1), stage(Dpo(), Dora(rank=2))
    )
    trial = Trial(tiny, planned, tmp_path)
    assert_same(trial.unbroken(), trial.broken((0, 1), (0, 2), (1, 1), (1, 3), (2, 2), (2, 3)))


@pytest.mark.parametrize(
    ("name", "on_base"), [("sft+dpo on one adapter", True), ("an adapter on trained weights", False)]
)
def test_an_adapter_knows_whether_it_stands_on_the_registered_base(
    name: str, on_base: bool, tiny: Base, tmp_path: Path
) -> None:
    planned = RECIPES[name].model_copy(update={"architecture": Architecture(base="tiny")})
    trained, _ = Trial(tiny, planned, tmp_path).broken((1, 1))
    assert trained.whole_base is on_base


def test_an_adapter_on_an_edited_base_does_not_stand_on_the_registered_one(tiny: Base, tmp_path: Path) -> None:
    planned = design(stage(Sft(), Lora(rank=2)), architecture=EDITED)
    assert not Trial(tiny, planned, tmp_path).unbroken()[0].whole_base


def test_a_base_with_dropout_trains_without_it_and_resumes_exactly(tiny: Base, tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=4096, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.5)
    dropping = AutoModelForCausalLM.from_config(config)
    planned = design(stage(Sft(), Full()), architecture=Architecture(base="gpt2"))
    trial = Trial(tiny, planned, tmp_path, base=dropping)
    assert_same(trial.unbroken(), trial.broken((0, 2)))


def test_shares_grow_with_the_rows_trained_on_and_end_at_one(tiny: Base, tmp_path: Path) -> None:
    planned = design(stage(Sft(), Lora(rank=2), epochs=1), stage(Dpo(), Lora(rank=2), epochs=3))
    _, witness = Trial(tiny, planned, tmp_path).unbroken()
    assert list(witness.shares) == [(0, step) for step in (1, 2, 3)] + [(1, step) for step in range(1, 10)]
    assert list(witness.shares.values()) == pytest.approx([(i + 1) / 12 for i in range(12)])


def test_a_checkpoint_is_safetensors_and_json_only(tiny: Base, tmp_path: Path) -> None:
    trial = Trial(tiny, RECIPES["an adapter on trained weights"], tmp_path)
    with pytest.raises(Broken):
        trial.train(Witness(tmp_path, breaking_at=(1, 2)))
    assert {file.name for file in tmp_path.iterdir()} == {"state.safetensors", "state.json"}
    position = json.loads((tmp_path / "state.json").read_text())
    assert (position["stage"], position["step"]) == (1, 2)
    prefixes = {name.split(".")[0] for name in checkpoint.load(tmp_path).tensors}
    assert prefixes == {"weights", "moment1", "moment2", "carried", "lengths", "reference"}


def test_a_checkpoint_of_an_adapter_holds_the_adapter_alone(tiny: Base, tmp_path: Path) -> None:
    trial = Trial(tiny, design(stage(Sft(), Lora(rank=2))), tmp_path)
    with pytest.raises(Broken):
        trial.train(Witness(tmp_path, breaking_at=(0, 1)))
    assert all(".lora_" in name for name in checkpoint.load(tmp_path).tensors)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    transposed = torch.arange(6.0).view(2, 3).T
    saved = Checkpoint(
        position=Position(stage=1, step=20, tokens=3000),
        tensors={"weights.a": transposed, "weights.b.c": torch.tensor(2.0), "reference": torch.ones(2, 2)},
    )
    assert [file.parent for file in checkpoint.save(saved, tmp_path)] == [tmp_path, tmp_path]
    loaded = checkpoint.load(tmp_path)
    assert loaded.position == saved.position
    assert loaded.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in saved.tensors.items())
    assert loaded.part("weights").keys() == {"a", "b.c"}
