"""Find out which weight updates and edits an architecture allows. A confined child process runs this module.

Each is tried on the twin, a tiny model of the same class and settings with random weights: it is trained, merged,
saved, and loaded again by plain transformers. The service does so once for an architecture. A twin that cannot be
trained at all stands for its model, unless the small sizes may be the reason.
"""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypedDict, get_args

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from luthier.design import Architecture
from luthier.errors import Infeasible, UserError
from luthier.models import confined
from luthier.models.base_model import ModelFacts
from luthier.updates import BitFit, QLora, Update, UpdateMember, VirtualTokens
from workers.import_model import standard_config
from workers.train.forward import layout
from workers.train.try_out import try_edit, try_update

SEED: Final = 0
SPREAD: Final = 0.2  # of the random weights: predictions are far from uniform
QUIET: Final = 0.02  # as most families start; numbers stay small
ROW: Final = 16  # tokens that a model without memory for its weights reads
_NUMBER: Final = re.compile(r"\d+")
MOST_PARAMETERS: Final = 50_000_000  # of a twin; settings that are not known here may have kept it large
CPU_SECONDS: Final = 240
MEMORY_BYTES: Final = 32 * 2**30  # of addresses: the libraries map many files
# Sizes of the updates that are tried.
_SMALL: Final = {"rank": 4, "layers": 1, "tokens": 4, "block": 8}
_BASE: Final = "twin"
_LIBRARY: Final = Path(transformers.__file__).parent


class Answer(TypedDict):
    """What was found: the updates and edits that fail, by kind, or why no model with these settings can be trained."""

    unsupported: dict[str, str]
    untrainable: str | None


def work(question: dict[str, Any], step: confined.Step) -> Answer:
    """Return what fails on the twin, with the reason. Raises UserError, or any error, if the tries themselves fail.

    The question has the `config` of the twin, the `facts` of the model and its `folder`.
    """
    facts = ModelFacts.model_validate(question["facts"])
    warnings.simplefilter("ignore")  # the libraries' advice on models that nobody sees
    step(f"Building a tiny {facts.architecture}")
    transformers.utils.logging.set_verbosity_error()
    model = build(question["config"], facts)
    if (reason := unreadable(model, question, facts)) is not None:
        return Answer(unsupported={}, untrainable=reason)
    found: dict[str, str] = {}
    tried = 0
    for update in updates(facts):
        step(f"Trying {update.kind} on a tiny {facts.architecture}")
        tried += 1
        if reason := try_update(model, update):
            found[update.kind] = reason
    if len(found) == tried:
        return Answer(unsupported={}, untrainable=next(iter(found.values())))
    if "lora" in found:
        found[QLora.kind_name()] = found["lora"]
    for edit, architecture in edits(facts, model):
        step(f"Trying to edit {edit} of a tiny {facts.architecture}")
        if reason := try_edit(model, architecture):
            found[edit] = reason
    return Answer(unsupported=found, untrainable=None)


def unreadable(twin: PreTrainedModel, question: dict[str, Any], facts: ModelFacts) -> str | None:
    """Return why models with the settings of the twin cannot be read or differentiated; None if they can.

    Raises UserError where it may be the small sizes of the twin that are at fault, and not the settings.
    """
    try:
        layout(twin)
    except Infeasible as fault:
        if fault.__cause__ is not None and not _fails_alike(Path(question["folder"]), facts, fault.__cause__):
            raise UserError(f"the tiny model is at fault: {fault.message}", param="source") from fault
        if fault.__cause__ is None and _reads(build(question["config"], facts, spread=QUIET)):
            raise UserError(f"the tiny model is at fault: {fault.message}", param="source") from fault
        return fault.message
    return None


def _reads(model: PreTrainedModel) -> bool:
    try:
        layout(model)
    except Infeasible:
        return False
    return True


def _fails_alike(folder: Path, facts: ModelFacts, cause: BaseException) -> bool:
    """Return whether the model itself, without memory for its weights, fails in a forward pass as its twin did."""
    reading = {} if facts.family == "encoder" else {"use_cache": False}
    config, _ = standard_config.load(folder)
    with FakeTensorMode():
        model = _family(facts).from_config(config, dtype=torch.float32).eval()
        ids_1T = torch.zeros((1, min(ROW, facts.context)), dtype=torch.long)
        try:
            model(input_ids=ids_1T, **reading).logits.sum()
        except Exception as error:  # any family's code may fail in any way
            return type(error) is type(cause) and (_words(error) == _words(cause) or _place(error) == _place(cause))
    return False


def _words(error: BaseException) -> str:
    return _NUMBER.sub("", str(error))


def _place(error: BaseException) -> tuple[str, int | None]:
    """Return the last line of transformers' code that an error came through. torch words the same error in other ways
    where tensors have no memory."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [(f.filename, f.lineno) for f in frames if _LIBRARY in Path(f.filename).parents]
    return inside[-1] if inside else ("", None)


def _family(facts: ModelFacts) -> Any:
    return AutoModelForMaskedLM if facts.family == "encoder" else AutoModelForCausalLM


def build(config: dict[str, Any], facts: ModelFacts, spread: float = SPREAD) -> PreTrainedModel:
    """Return the twin with this config, in float32. Raises UserError if it is not tiny."""
    family = _family(facts)
    loaded = AutoConfig.for_model(**config)
    loaded.get_text_config(decoder=True).initializer_range = spread
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
