"""Make a member of the zoo: a tiny model of random weights, by transformers' own classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.zoo.declarations import COMMON, DECLARATIONS
from workers.capabilities import fill_zeros

TOKENIZER = Path(__file__).parents[1] / "models" / "tiny-chat"


def build(model_type: str, *, seed: int = 0) -> PreTrainedModel:
    """Return the tiny model of this type, in float32."""
    default = AutoConfig.for_model(model_type)
    known = {name: value for name, value in COMMON.items() if hasattr(default, name)}
    config = AutoConfig.for_model(model_type, **{**known, **DECLARATIONS[model_type].settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        fill_zeros(model)
    return model.float().eval()


def save(model: PreTrainedModel, folder: Path) -> None:
    """Save the model with the tokenizer that the zoo shares."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(TOKENIZER / name, folder / name)
