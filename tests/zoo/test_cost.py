"""The cost model counts the parameters that training really trains, on models of many types."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from transformers import PreTrainedModel

from luthier.design import Architecture
from luthier.errors import Infeasible
from luthier.models.base_model import ModelFacts, read_facts
from luthier.updates import Lora, Update
from search.cost.parameters import moving, shape
from tests.zoo.build import build, save
from tests.zoo.updates import UPDATES, by_nature
from workers.import_model.standard_config import standard
from workers.train import updates

pytestmark = pytest.mark.filterwarnings("ignore")

# One kind of layer and no experts. Elsewhere the anatomy has only the first layer, and the counts are approximate.
DENSE = (
    *("arcee", "bitnet", "bloom", "codegen", "ctrl", "diffllama", "exaone4", "falcon", "gemma2", "gemma3_text"),
    *("gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "llama", "mpt", "nemotron", "olmo2", "openai-gpt", "opt"),
    *("persimmon", "phi", "phi3", "qwen2", "qwen3", "stablelm", "starcoder2", "xglm", "xlstm"),
)
SOME = {"bloom", "gpt2", "gemma2", "llama", "phi", "qwen3", "xlstm"}
PLACED = (Lora(rank=2, placement="attention"), Lora(rank=2, placement="mlp"))


@cache
def member(model_type: str) -> tuple[PreTrainedModel, ModelFacts]:
    model = build(model_type)
    with TemporaryDirectory() as folder:
        save(model, Path(folder))
        return model, read_facts(Path(folder), standard(Path(folder)))


def trained(model: PreTrainedModel, update: Update) -> int | None:
    """Return how many parameters the update really trains; None where it does not go with the model."""
    try:
        applied = updates.apply(copy.deepcopy(model), update, 0)
    except Infeasible:
        return None
    return sum(parameter.numel() for parameter in applied.trainable().values())


def named(update: Update) -> str:
    return f"{update.kind} on {getattr(update, 'placement', 'all')}"


@pytest.mark.parametrize(
    "model_type", [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in DENSE]
)
def test_as_many_parameters_are_counted_as_are_trained(model_type: str) -> None:
    model, facts = member(model_type)
    real = {update: trained(model, update) for update in (*UPDATES, *PLACED) if by_nature(model, update)}
    edited = shape(facts, Architecture(base="tiny"))
    counted = {named(update): moving(edited, update).numbers for update, count in real.items() if count is not None}
    assert counted == {named(update): count for update, count in real.items() if count is not None}
    assert {"full on all", "lora on all", "lora on mlp"} <= counted.keys()
