"""Find out which weight updates and edits an architecture allows. A confined child process runs this module.

Each is tried on the twin, a tiny model of the same class and settings with random weights: it is trained, merged,
saved, and loaded again by plain transformers. The service does so once for an architecture.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any, Final, get_args

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from luthier.design import Architecture
from luthier.errors import UserError
from luthier.models import confined
from luthier.models.base_model import ModelFacts
from luthier.updates import BitFit, QLora, Update, UpdateMember, VirtualTokens
from workers.train.try_out import try_edit, try_update

SEED: Final = 0
SPREAD: Final = 0.2  # of the random weights: predictions are far from uniform
MOST_PARAMETERS: Final = 50_000_000  # of a twin; settings that are not known here may have kept it large
CPU_SECONDS: Final = 240
MEMORY_BYTES: Final = 32 * 2**30  # of addresses: the libraries map many files
# Sizes of the updates that are tried.
_SMALL: Final = {"rank": 4, "layers": 1, "tokens": 4, "block": 8}
_BASE: Final = "twin"


def work(question: dict[str, Any], step: confined.Step) -> dict[str, str]:
    """Return the updates and edits that fail on the twin, with the reason. Raises UserError if all do.

    The question has the `config` of the twin and the `facts` of the model.
    """
    facts = ModelFacts.model_validate(question["facts"])
    warnings.simplefilter("ignore")  # the libraries' advice on models that nobody sees
    step(f"Building a tiny {facts.architecture}")
    transformers.utils.logging.set_verbosity_error()
    model = build(question["config"], facts)
    found: dict[str, str] = {}
    tried = 0
    for update in updates(facts):
        step(f"Trying {update.kind} on a tiny {facts.architecture}")
        tried += 1
        if reason := try_update(model, update):
            found[update.kind] = reason
    if len(found) == tried:
        raise UserError(f"a tiny {facts.architecture} cannot be trained: {next(iter(found.values()))}", param="source")
    if "lora" in found:
        found[QLora.kind_name()] = found["lora"]
    for edit, architecture in edits(facts, model):
        step(f"Trying to edit {edit} of a tiny {facts.architecture}")
        if reason := try_edit(model, architecture):
            found[edit] = reason
    return found


def build(config: dict[str, Any], facts: ModelFacts) -> PreTrainedModel:
    """Return the twin with this config, in float32. Raises UserError if it is not tiny."""
    family: Any = AutoModelForMaskedLM if facts.family == "encoder" else AutoModelForCausalLM
    loaded = AutoConfig.for_model(**config)
    loaded.get_text_config(decoder=True).initializer_range = SPREAD
    with torch.device("meta"):
        numbers = family.from_config(loaded).num_parameters()
    if numbers > MOST_PARAMETERS:
        raise UserError(f"a tiny {facts.architecture} would have {numbers:,} parameters", param="source")
    torch.manual_seed(SEED)
    model: PreTrainedModel = family.from_config(loaded, dtype=torch.float32).eval()
    fill_zeros(model)
    return model


@torch.no_grad()
def fill_zeros(model: PreTrainedModel) -> None:
    """Give random values to linear layers that start as zero (gates of xLSTM), which those of a trained model are not.

    Updates that divide by the norm of a weight, or start from its largest directions, would fail on zeros.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and not module.weight.any():
            module.weight.normal_(std=SPREAD)


def updates(facts: ModelFacts) -> Iterator[Update]:
    """Yield one update of each kind that can be tried without a GPU."""
    for member in get_args(get_args(Update)[0]):
        assert issubclass(member, UpdateMember)
        if member is QLora or (member is BitFit and not facts.biases):
            continue
        if issubclass(member, VirtualTokens) and facts.family == "encoder":
            continue
        yield member(**{name: size for name, size in _SMALL.items() if name in member.model_fields})


def edits(facts: ModelFacts, model: PreTrainedModel) -> Iterator[tuple[str, Architecture]]:
    """Yield one edit of each kind that the facts allow, by its field."""
    config = model.config.get_text_config(decoder=True)
    if config.num_hidden_layers > 1:
        yield "layers", Architecture(base=_BASE, layers=config.num_hidden_layers - 1)
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None) or 1
    if facts.family == "decoder" and facts.kv_heads > 1 and heads > 1:
        yield "kv_heads", Architecture(base=_BASE, kv_heads=heads // 2)
    if facts.attention_window is not None:
        yield "window", Architecture(base=_BASE, window=8)
    if facts.rope == "plain":
        yield "rope_factor", Architecture(base=_BASE, rope_factor=2.0)


def main() -> int:
    return confined.answer(work, lambda question: confined.Limits(cpu_seconds=CPU_SECONDS, memory_bytes=MEMORY_BYTES))


if __name__ == "__main__":
    sys.exit(main())
