"""The worker's in-memory cache between trials: base models, tokenizers, rows and tokenised examples."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from luthier.algorithms import Algorithm
from luthier.errors import Infeasible, LuthierError
from luthier.models import confined
from luthier.models.base_model import BaseModelEntry
from luthier.task import JudgeSpec
from workers.evaluate.judge import renderer
from workers.import_model.neutral_config import CODE, QUANTISED, neutral
from workers.train.algorithms import Example, objective
from workers.train.architectures.edits import start_head
from workers.train.data.tool_template import with_tool_template
from workers.train.layout_probe import layout_of

CALIBRATION_ROWS, CALIBRATION_TOKENS = 16, 256  # rows, and tokens of each; small enough for a CPU

Rows = tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base model as registered, in host memory. Trials train copies and never change this one."""

    entry: BaseModelEntry
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@lru_cache(maxsize=4)
def base(entry: BaseModelEntry) -> Base:
    """Return a registered base model, loaded once. Raises Infeasible if it cannot be loaded."""
    return load(entry)


def load(entry: BaseModelEntry) -> Base:
    """Load a model and its tokenizer: safetensors only, no remote code. Find out how it reads rows.

    Raises Infeasible if that fails, whatever is wrong with the files: no design can start from such a base.
    """
    with _refused(f"base model {entry.name} cannot be loaded from {entry.source}"):
        model = _load(entry)
        tokenizer = AutoTokenizer.from_pretrained(entry.source, trust_remote_code=False)
    tokenizer.init_kwargs.pop(CODE, None)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if entry.facts.family == "encoder" and tokenizer.mask_token_id is None:
        raise Infeasible(f"base model {entry.name} is an encoder, but its tokenizer has no mask token")
    with _refused(f"base model {entry.name} cannot read rows"):
        layout_of(model.eval())
    return Base(entry=entry, model=model, tokenizer=tokenizer)


@contextmanager
def _refused(why: str) -> Iterator[None]:
    """Raise every error of the libraries as Infeasible. They fail in many ways on files that do not fit each other."""
    try:
        yield
    except (LuthierError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of the tokenizers library are no Exception
        raise Infeasible(f"{why}: {confined.describe(error)}") from error


def frozen(entry: BaseModelEntry, device: torch.device) -> PreTrainedModel:
    """Return a registered base model for inference on a device; on a CPU it is the cached one itself."""
    model = base(entry).model
    if device.type == "cpu":
        return model
    moved = copy.deepcopy(model)
    torch.nn.Module.to(moved, device)
    return moved


def tokenizer(entry: BaseModelEntry, judge: JudgeSpec) -> PreTrainedTokenizerBase:
    """Return the base's tokenizer. For rows with tools its chat template is one that renders tools and tool calls.

    The base's own template is kept if it does so. Raises Infeasible if it does not and cannot be extended.
    """
    return _tool_tokenizer(entry) if judge.tools else base(entry).tokenizer


@lru_cache(maxsize=4)
def _tool_tokenizer(entry: BaseModelEntry) -> PreTrainedTokenizerBase:
    showing = with_tool_template(base(entry).tokenizer)
    if showing is None:
        raise Infeasible(f"the chat template of base model {entry.name} does not render tools or tool calls")
    return showing


def _load(entry: BaseModelEntry) -> PreTrainedModel:
    if (Path(entry.source) / "adapter_config.json").exists():
        raise Infeasible(
            f"base model {entry.name} cannot be loaded from {entry.source}: it has an adapter_config.json, and "
            "transformers would load that adapter too. Remove the files of the adapter, or merge it"
        )
    config = neutral(AutoConfig.from_pretrained(entry.source, trust_remote_code=False))
    packed = getattr(config, QUANTISED, None) is not None
    settings: dict[str, Any] = {
        "config": config,
        "dtype": torch.float32,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    model: PreTrainedModel
    match entry.facts.family:
        case "decoder":
            model = AutoModelForCausalLM.from_pretrained(entry.source, **settings)
        case "encoder":
            with torch.random.fork_rng(devices=[]):
                model, info = AutoModelForMaskedLM.from_pretrained(entry.source, output_loading_info=True, **settings)
            start_head(model, info["missing_keys"])
    if packed:
        torch.nn.Module.to(model, torch.float32)  # transformers unpacks to half precision, whatever `dtype` says
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0  # RWKV would halve weights in place under `eval()`, for float16
    return model


@lru_cache(maxsize=16)
def rows(file: Path) -> Rows:
    """Return the rows of a JSONL blob. Blobs are content-addressed, so the file at a path never changes."""
    with file.open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


@lru_cache(maxsize=16)
def calibration(entry: BaseModelEntry, judge: JudgeSpec, train: Path) -> tuple[tuple[int, ...], ...]:
    """Return token ids of the first training rows: the sample on which layers are measured before an edit."""
    render = renderer(tokenizer(entry, judge), judge)
    encoder = entry.facts.family == "encoder"
    rendered = (
        tokens
        for row in rows(train)
        for tokens in (render.bidirectional(row["text"]) if encoder else render.answers(row, judge.kind))
    )
    return tuple(tokens.ids[:CALIBRATION_TOKENS] for tokens in islice(rendered, CALIBRATION_ROWS))


_SOME: Final[dict[str, Algorithm]] = {}  # by kind, an algorithm with any hyperparameters


def examples(entry: BaseModelEntry, judge: JudgeSpec, train: Path, algorithm: Algorithm) -> tuple[Example, ...]:
    """Return the training rows as examples of an algorithm. Its hyperparameters do not affect them."""
    _SOME.setdefault(algorithm.kind, algorithm)
    return _examples(entry, judge, train, algorithm.kind)


@lru_cache(maxsize=16)
def _examples(entry: BaseModelEntry, judge: JudgeSpec, train: Path, kind: str) -> tuple[Example, ...]:
    render = renderer(tokenizer(entry, judge), judge)
    learn = objective(_SOME[kind])
    return tuple(example for row in rows(train) for example in learn.examples(row, judge.kind, render))
