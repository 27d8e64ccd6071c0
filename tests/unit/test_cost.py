"""The cost model: how many numbers move, what work is done for them, and what finished trials teach it."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from luthier.algorithms import Dpo, Grpo, Mlm, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.models.base_model import Anatomy, BaseModelEntry, read_facts
from luthier.task import DataKind
from luthier.trial import Usage
from luthier.updates import Update
from search.cost import estimate as cost
from search.cost.estimate import Calibration, Estimate, Seen, calibrate, estimate, token_ratio
from search.cost.flops import TOKEN_CAP
from search.cost.parameters import moving, shape
from search.cost.trial_work import plan
from search.methods.amounts import Workload
from tests.biased import biased
from tests.cells import SIZES
from tests.unit.search_samples import SMOL
from tests.untied import untied
from workers import cache as warm
from workers.train import updates
from workers.train.architectures import build
from workers.train.forward import TOKEN_CAP as WORKERS_TOKEN_CAP

MODELS = Path(__file__).parents[1] / "models"
UPDATE: TypeAdapter[Update] = TypeAdapter(Update)
DECODER_UPDATES = [
    "full",
    "top_layers",
    "lora",
    "rslora",
    "dora",
    "layernorm",
    "pissa",
    "lora_plus",
    "vera",
    "randlora",
    "ia3",
    "oft",
    "adalora",
    "prompt",
    "prefix",
]
ENCODER_UPDATES = [kind for kind in DECODER_UPDATES if kind not in ("prompt", "prefix")] + ["bitfit"]


@cache
def entry(name: str) -> BaseModelEntry:
    return BaseModelEntry(name=name, source=str(MODELS / name), facts=read_facts(MODELS / name))


def update(kind: str, **fields: Any) -> Update:
    return UPDATE.validate_python({"kind": kind, **SIZES.get(kind, {}), **fields})


def job(kind: DataKind = DataKind.PAIRS, **fields: Any) -> Workload:
    usual: dict[str, Any] = {
        "rows": 200,
        "prompt": 20.0,
        "target": 30.0,
        "spread": 5.0,
        "validation": 20,
        "test": 20,
        "window": 512,
        "max_tokens": 512,
        "max_new_tokens": 32,
        "max_rows": 128,
        "max_generations": 32,
        "pseudo_positions": 8,
        "pseudo_windows": 128,
        "graded": True,
    }
    return Workload(kind=kind, **(usual | fields))


def design(
    kind: str = "lora",
    algorithm: Any = None,
    *,
    batch: int = 8,
    epochs: float = 1.0,
    architecture: dict[str, Any] | None = None,
    **fields: Any,
) -> Design:
    optimiser = Optimiser(learning_rate=1e-3, batch_size=batch, epochs=epochs)
    stage = Stage(algorithm=algorithm or Sft(), update=update(kind, **fields), optimiser=optimiser)
    return Design(architecture=Architecture(base="tiny-chat", **(architecture or {})), stages=(stage,))


def priced(it: Design, load: Workload | None = None, **limits: float) -> Estimate:
    return estimate(entry("tiny-chat").facts, it, load or job(), Calibration.default("cpu"), **limits)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tiny-chat", kind) for kind in DECODER_UPDATES] + [("tiny-encoder", kind) for kind in ENCODER_UPDATES],
)
def test_as_many_numbers_move_as_in_the_real_model(name: str, kind: str) -> None:
    applied = updates.apply(copy.deepcopy(warm.base(entry(name)).model), update(kind), 0)
    counted = moving(shape(entry(name).facts, Architecture(base=name)), update(kind))
    real = applied.trainable().values()
    assert counted.numbers == sum(p.numel() for p in real)
    if kind in ("lora", "dora", "vera", "randlora", "oft", "adalora", "ia3", "pissa"):
        assert counted.tensors == len(real)


@pytest.mark.parametrize("kind", ["lora", "dora", "pissa"])
@pytest.mark.parametrize("placement", ["attention", "mlp"])
@pytest.mark.parametrize("name", ["tiny-chat", "tiny-encoder"])
def test_adapters_sit_where_the_real_ones_do(name: str, placement: str, kind: str) -> None:
    placed = update(kind, placement=placement)
    applied = updates.apply(copy.deepcopy(warm.base(entry(name)).model), placed, 0)
    counted = moving(shape(entry(name).facts, Architecture(base=name)), placed)
    assert counted.numbers == sum(p.numel() for p in applied.trainable().values())


def test_adapters_on_embeddings_are_counted() -> None:
    model = untied(copy.deepcopy(warm.base(entry("tiny-chat")).model))
    placed = update("lora", placement="embeddings")
    counted = moving(shape(entry("tiny-chat").facts, Architecture(base="tiny-chat")), placed)
    assert counted.numbers == sum(p.numel() for p in updates.apply(model, placed, 0).trainable().values())


@pytest.mark.parametrize("edit", [{"layers": 4}, {"kv_heads": 2}, {"layers": 3, "kv_heads": 1}, {"window": 16}])
@pytest.mark.parametrize("kind", ["full", "lora", "top_layers", "vera", "randlora"])
def test_edits_are_counted(edit: dict[str, int], kind: str) -> None:
    architecture = Architecture(base="tiny-chat", **edit)
    model = build(warm.base(entry("tiny-chat")).model, architecture)
    counted = shape(entry("tiny-chat").facts, architecture)
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    real = updates.apply(model, update(kind), 0).trainable().values()
    assert moving(counted, update(kind)).numbers == sum(p.numel() for p in real)


def test_biases_are_counted_where_a_decoder_has_them(tmp_path: Path) -> None:
    model = biased(copy.deepcopy(warm.base(entry("tiny-chat")).model))
    model.save_pretrained(tmp_path)
    warm.base(entry("tiny-chat")).tokenizer.save_pretrained(tmp_path)
    counted = moving(shape(read_facts(tmp_path), Architecture(base="b")), update("bitfit"))
    assert counted.numbers == sum(p.numel() for p in updates.apply(model, update("bitfit"), 0).trainable().values())


def test_a_model_registered_before_its_anatomy_was_read_is_taken_for_a_llama() -> None:
    facts = entry("tiny-chat").facts
    old = facts.model_copy(update={"anatomy": None})
    for kind in DECODER_UPDATES:
        assert priced(design(kind)) == estimate(old, design(kind), job(), Calibration.default("cpu"))
    assert "anatomy" not in old.model_dump()
    assert isinstance(facts.anatomy, Anatomy)


def test_the_workers_cap_of_tokens_is_the_one_that_is_reckoned_with() -> None:
    assert TOKEN_CAP == WORKERS_TOKEN_CAP


def test_a_token_of_full_training_takes_six_flops_for_each_weight_it_meets() -> None:
    """Kaplan et al. 2020; the head is met by targets alone, and attention comes on top."""
    facts = entry("tiny-chat").facts
    load = job(DataKind.TEXT, prompt=0.0, target=100.0, graded=False)
    it = plan(facts, design("full"), load, "cpu")
    weights = facts.parameters - 13 * facts.hidden_size  # all but the norms: each token is a target
    assert it.training.flops == pytest.approx(6 * weights * 200 * 100, rel=0.1)
    assert it.training.flops > 6 * weights * 200 * 100


def test_frozen_weights_need_no_gradient_of_their_own() -> None:
    flops = {kind: priced(design(kind)).flops for kind in ("full", "lora", "top_layers")}
    assert 2 / 3 * flops["full"] < flops["lora"] < 0.8 * flops["full"]  # a third less, and the adapters' own
    assert flops["top_layers"] < flops["lora"]


@pytest.mark.parametrize("twice", [{"epochs": 2.0}])
def test_flops_and_tokens_grow_with_the_epochs(twice: dict[str, Any]) -> None:
    once, more = priced(design()), priced(design(**twice))
    assert more.flops == pytest.approx(2 * once.flops)
    assert (more.tokens, more.steps) == (2 * once.tokens, 2 * once.steps)
    assert more.memory_bytes == once.memory_bytes
    assert more.seconds_parts["training"] > 1.9 * once.seconds_parts["training"]


def test_pairs_of_answers_and_references_are_more_work_than_answers() -> None:
    load = job(DataKind.PREFERENCE, graded=False)
    sft, dpo = priced(design(), load), priced(design(algorithm=Dpo()), load)
    assert dpo.tokens == 2 * sft.tokens
    assert dpo.flops > 2.2 * sft.flops  # a pass over all pairs for the reference


def test_rollouts_are_reckoned_apart_from_what_is_learnt_from_them() -> None:
    it, longer = (priced(design(algorithm=Grpo(group=8)), job(max_new_tokens=most)) for most in (8, 32))
    assert it.seconds_parts["rollouts"] > 0
    assert longer.seconds_parts["rollouts"] > 2 * it.seconds_parts["rollouts"]
    assert priced(design()).seconds_parts["rollouts"] == 0
    assert priced(design(algorithm=Grpo(group=8, beta=0.1))).flops > it.flops


def test_answers_are_graded_at_moments_only_where_the_reward_decides() -> None:
    it = design()
    recipe = it.stages[0].optimiser.model_copy(update={"schedule": "constant", "epochs": 10})
    it = it.model_copy(update={"stages": (it.stages[0].model_copy(update={"optimiser": recipe}),)})
    by_likelihood, by_reward, ungraded = (
        priced(it, job(objective=objective, graded=graded)).seconds_parts["judging"]
        for objective, graded in (("perplexity", True), ("reward", True), ("perplexity", False))
    )
    assert ungraded < by_likelihood < 0.8 * by_reward


@pytest.mark.parametrize(
    ("field", "values"),
    [("batch", (4, 8, 16, 32)), ("rank", (4, 16, 64, 256)), ("architecture", ({"layers": 3}, {"layers": 5}, {}))],
)
def test_memory_grows(field: str, values: tuple[Any, ...]) -> None:
    found = [priced(design(**{field: value})).memory_bytes for value in values]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_memory_says_what_holds_it() -> None:
    full, lora = priced(design("full")), priced(design("lora"))
    assert full.memory_parts["optimiser"] == 8 * full.trainable_parameters
    assert full.memory_parts["gradients"] == 4 * full.trainable_parameters
    assert sum(lora.memory_parts.values()) == pytest.approx(lora.memory_bytes, abs=20)
    assert full.memory_parts["optimiser"] > 10 * lora.memory_parts["optimiser"]


def test_no_more_tokens_are_held_than_one_pass_takes() -> None:
    load = job(target=400.0, prompt=100.0, spread=0.0)
    assert priced(design(batch=4), load).memory_bytes == priced(design(batch=32), load).memory_bytes


def test_an_encoder_learns_from_masked_tokens_alone() -> None:
    facts = entry("tiny-encoder").facts
    load = job(DataKind.TEXT, prompt=0.0, target=100.0, window=128, graded=False)

    def flops(mask: float) -> float:
        it = design("full", Mlm(mask=mask)).model_copy(update={"architecture": Architecture(base="tiny-encoder")})
        return estimate(facts, it, load, Calibration.default("cpu")).flops

    assert flops(0.15) < flops(0.4)


def test_a_design_that_does_not_fit_is_told_so_with_the_numbers() -> None:
    it = priced(design("full"), memory_bytes=300 * 2**20)
    assert not it.feasible
    assert it.why is not None
    assert cost.size(it.memory_bytes) in it.why
    assert "300 MiB" in it.why
    assert priced(design("full"), memory_bytes=2 * it.memory_bytes).feasible


def test_too_little_time_is_a_reason_too_once_the_estimate_can_be_trusted() -> None:
    usual = priced(design()).seconds
    assert priced(design(), seconds=usual / 2).feasible  # nothing has been measured yet: it may be wrong by that
    measured = Calibration.default("cpu").model_copy(update={"trials": 30})
    late = estimate(entry("tiny-chat").facts, design(), job(), measured, seconds=usual / 2)
    assert late.why is not None
    assert f"{usual:.3g} s" in late.why
    assert f"{usual / 2:.3g} s" in late.why


def seen(it: Design, pace: float = 1.0, process: float = 6e8) -> Seen:
    """A finished trial on a machine so many times slower than the default."""
    facts, load = entry("tiny-chat").facts, job()
    trial, prices = plan(facts, it, load, "cpu"), Calibration.default("cpu")
    phases = [sum(prices.memory_parts(phase).values()) - prices.bytes[0] + process for phase in trial.phases]
    train, judged, other = (pace * prices.price(work) for work in (trial.training, trial.judging, trial.other))
    usage = Usage(
        peak_memory_bytes=round(max(phases)),
        train_seconds=train,
        train_tokens=round(trial.tokens),
        steps=trial.steps,
        judge_seconds=judged,
        judged_rows=trial.judged_rows,
    )
    return Seen(design=it, facts=facts, job=load, usage=usage, seconds=train + judged + other)


def test_finished_trials_set_the_prices() -> None:
    spread = [design(kind, batch=batch) for kind in ("full", "lora", "dora", "ia3") for batch in (4, 16)]
    fitted = calibrate("cpu", [seen(it, pace=3.0) for it in spread])
    assert fitted.trials == 8
    other = seen(design("rslora", rank=32, epochs=2.0), pace=3.0)
    it = estimate(other.facts, other.design, other.job, fitted)
    assert other.seconds is not None
    assert it.seconds == pytest.approx(other.seconds, rel=0.1)
    assert it.memory_bytes == pytest.approx(other.usage.peak_memory_bytes, rel=0.03)
    assert it.calibrated_from == 8


def test_a_single_trial_moves_the_prices_part_of_the_way() -> None:
    it = design()
    default = priced(it).seconds
    slow = seen(it, pace=4.0)
    one = estimate(slow.facts, it, slow.job, calibrate("cpu", [slow])).seconds
    assert 1.5 * default < one <= 4.2 * default
    assert calibrate("cpu", []) == Calibration.default("cpu")


def test_a_trial_that_was_trained_in_parts_counts_for_its_last_part() -> None:
    whole = seen(design(), pace=2.0)
    half = whole.usage.model_copy(
        update={
            "steps": whole.usage.steps // 5,
            "train_seconds": whole.usage.train_seconds / 5,
            "judged_rows": whole.usage.judged_rows // 4,
            "judge_seconds": whole.usage.judge_seconds / 4,
        }
    )
    part = whole.model_copy(update={"usage": half, "seconds": None})
    again = calibrate("cpu", [part]).seconds
    assert again == pytest.approx(calibrate("cpu", [whole.model_copy(update={"seconds": None})]).seconds, rel=0.02)


def test_a_trial_that_pauses_tells_of_seconds_but_not_of_memory_that_it_has_not_come_to() -> None:
    whole = seen(design(), pace=3.0)
    paused = whole.model_copy(update={"seconds": None, "ended": False})
    fitted = calibrate("cpu", [paused])
    assert fitted.seconds == calibrate("cpu", [whole.model_copy(update={"seconds": None})]).seconds
    assert fitted.bytes == Calibration.default("cpu").bytes


def test_the_first_stage_of_a_trial_that_pauses_is_not_taken_for_all_of_them() -> None:
    one = design()
    both = one.model_copy(update={"stages": (*one.stages, *one.stages)})
    paused = seen(both, pace=3.0).model_copy(update={"seconds": None, "ended": False})
    untrained = paused.model_copy(update={"usage": paused.usage.model_copy(update={"steps": 0})})
    assert calibrate("cpu", [paused]) == calibrate("cpu", [untrained])
    assert token_ratio([paused]) == 1.0


def test_trials_show_how_many_tokens_a_row_really_has() -> None:
    it = seen(design())
    longer = it.usage.model_copy(update={"train_tokens": round(1.3 * it.usage.train_tokens)})
    assert token_ratio([it]) == pytest.approx(1.0)
    assert token_ratio([it.model_copy(update={"usage": longer})]) == pytest.approx(1.3, rel=1e-3)
    assert token_ratio([]) == 1.0


def test_an_edited_or_larger_model_is_priced_as_what_it_is() -> None:
    small, large = priced(design("full")), estimate(SMOL.facts, design("full"), job(), Calibration.default("cpu"))
    assert large.seconds_parts["training"] > 20 * small.seconds_parts["training"]
    assert large.parameters == SMOL.facts.parameters
    assert priced(design("full", architecture={"layers": 3})).seconds < small.seconds
    assert torch.get_default_dtype() is torch.float32  # what a number's four bytes are reckoned by
