"""Samples for people: a model's answers to the first held-out prompts."""

import pytest

from luthier.task import DataKind, JudgeSpec
from tests import data_samples
from workers.cache import Base
from workers.evaluate.samples import SAMPLES, sample_answers

ROWS = {
    DataKind.TEXT: data_samples.text,
    DataKind.PAIRS: data_samples.pairs,
    DataKind.CHAT: data_samples.chat,
    DataKind.PREFERENCE: data_samples.preference,
    DataKind.UNPAIRED: data_samples.unpaired,
    DataKind.PROMPTS: data_samples.wishes,
}


def spec(kind: DataKind) -> JudgeSpec:
    return JudgeSpec(kind=kind, validation="", test="", objective="perplexity", max_new_tokens=4)


@pytest.mark.parametrize("kind", ROWS)
def test_the_first_prompts_of_every_kind_are_answered(tiny: Base, kind: DataKind) -> None:
    rows = ROWS[kind](5)
    found = sample_answers(tiny.model, tiny.tokenizer, spec(kind), rows)
    assert len(found) == SAMPLES
    assert any(sample.answer for sample in found)
    if kind is DataKind.TEXT:
        assert rows[0]["text"].startswith(found[0].prompt.strip())
    elif kind is DataKind.PREFERENCE:
        assert (found[0].prompt, found[0].reference) == (rows[0]["prompt"], rows[0]["chosen"])
    elif kind is DataKind.CHAT:
        assert found[0].prompt.startswith(f"{rows[0]['messages'][0]['role']}: {rows[0]['messages'][0]['content']}")
        assert found[0].reference == rows[0]["messages"][-1]["content"]


def test_an_encoder_does_not_answer(encoder: Base) -> None:
    judge = spec(DataKind.TEXT).model_copy(update={"family": "encoder"})
    assert sample_answers(encoder.model, encoder.tokenizer, judge, data_samples.text(3)) == ()
