"""Which base models a design may distil, and how that shapes the search."""

from __future__ import annotations

import pytest

from luthier.algorithms import Gkd
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import IllegalDesign
from luthier.task import DataKind, Pin
from luthier.updates import Lora
from search.cost.trial_work import plan
from search.methods.amounts import Workload
from search.space import validate
from search.space.validate import check, recipes, teachers_of
from tests.unit.search_samples import AtRandom, entry, space_of

STUDENT = entry("student", tokenizer="aa", parameters=1_000_000)
LARGER = entry("larger", tokenizer="aa", parameters=9_000_000)
LARGEST = entry("largest", tokenizer="aa", parameters=90_000_000)
OTHER_TOKENIZER = entry("other", tokenizer="bb", parameters=90_000_000)
UNKNOWN_TOKENIZER = entry("old", parameters=90_000_000)
ENCODER = entry("encoder", tokenizer="aa", family="encoder", parameters=90_000_000)
ALL = (STUDENT, LARGER, LARGEST, OTHER_TOKENIZER, UNKNOWN_TOKENIZER, ENCODER)


def distilled(teacher: str) -> Design:
    stage = Stage(algorithm=Gkd(teacher=teacher), update=Lora(rank=4), optimiser=Optimiser(learning_rate=1e-3))
    return Design(architecture=Architecture(base="student"), stages=(stage,))


def test_a_teacher_is_a_larger_decoder_with_the_same_tokenizer() -> None:
    assert teachers_of(STUDENT, ALL) == ("larger", "largest")
    assert teachers_of(LARGER, ALL) == ("largest",)
    assert teachers_of(LARGEST, ALL) == ()
    assert teachers_of(UNKNOWN_TOKENIZER, ALL) == ()


def test_without_a_teacher_distillation_is_not_searched_and_a_pin_on_it_is_refused() -> None:
    assert "gkd" not in space_of(models=(STUDENT, OTHER_TOKENIZER)).recipes
    with pytest.raises(IllegalDesign, match="teacher") as refused:
        space_of(models=(STUDENT, OTHER_TOKENIZER), pin=Pin(algorithm=("gkd",)))
    assert refused.value.param == "search.pin.algorithm"
    assert "gkd" not in recipes(DataKind.PAIRS)
    assert "gkd" in recipes(DataKind.PAIRS, taught=True)


def test_each_model_is_distilled_from_its_own_teachers_and_the_largest_from_none() -> None:
    space = space_of(models=(STUDENT, LARGER, LARGEST))
    designs = [space.sample(AtRandom(seed)) for seed in range(600)]
    found = {(design.architecture.base, design.teacher) for design in designs if design.recipe == "gkd"}
    assert found == {("student", "larger"), ("student", "largest"), ("larger", "largest")}
    for design in designs:
        assert space.decode(space.encode(design)) == design


def test_pinned_teachers_are_the_only_ones_and_an_impossible_one_is_refused() -> None:
    pin = Pin(algorithm=("gkd",), model=("student",), gkd_teacher=("largest",))
    assert space_of(models=(STUDENT, LARGER, LARGEST), pin=pin).teachers == {"gkd": ("largest",)}
    with pytest.raises(IllegalDesign, match="larger, largest") as refused:
        space_of(models=ALL[:4], pin=Pin(model=("student",), gkd_teacher=("other",)))
    assert refused.value.param == "search.pin.gkd_teacher"
    with pytest.raises(IllegalDesign, match="gkd_teacher") as idle:
        space_of(models=(STUDENT, LARGER), pin=Pin(algorithm=("sft",), gkd_teacher=("larger",)))
    assert idle.value.param == "search.pin.gkd_teacher"


def test_a_design_with_an_impossible_teacher_is_refused_with_the_possible_ones() -> None:
    check(distilled("larger"), DataKind.PAIRS, STUDENT, entries=ALL)
    with pytest.raises(IllegalDesign, match="larger, largest") as refused:
        check(distilled("other"), DataKind.PAIRS, STUDENT, entries=ALL)
    assert refused.value.param == "stages.algorithm.teacher"
    assert validate.refusal("gkd+dpo", DataKind.PREFERENCE) is None


def test_the_teacher_is_in_the_cost_of_a_trial() -> None:
    load = Workload(
        kind=DataKind.PAIRS,
        rows=100,
        prompt=20,
        target=20,
        validation=20,
        test=20,
        window=512,
        max_tokens=512,
        max_new_tokens=16,
        max_rows=20,
        max_generations=8,
        pseudo_positions=8,
        pseudo_windows=8,
        graded=False,
    )
    taught = load.model_copy(update={"teachers": {"larger": LARGER.facts}})
    alone, together = (plan(STUDENT.facts, distilled("larger"), job, "cpu") for job in (load, taught))
    assert together.training.flops > alone.training.flops
    for before, after in zip(alone.phases, together.phases, strict=True):
        assert after.copies - before.copies == pytest.approx(4 * LARGER.facts.parameters)
