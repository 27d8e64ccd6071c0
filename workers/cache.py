"""What a worker keeps between trials: base models, tokenizers and tokenised data. Imports are kept by the process."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from luthier.design import Algorithm
from luthier.errors import Infeasible
from luthier.models import chat_template
from luthier.models.base_model import BaseModelEntry
from luthier.task import JudgeSpec
from workers.evaluate.judge import renderer
from workers.train.algorithms import Example, objective
from workers.train.architectures.edits import start_head
from workers.train.forward import require_unpadded

CALIBRATION_ROWS, CALIBRATION_TOKENS = 16, 256  # and tokens of each: a glance even for a CPU

Rows = tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base model as registered, in host memory. Trials train copies; nobody changes this one."""

    entry: BaseModelEntry
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@lru_cache(maxsize=4)
def base(entry: BaseModelEntry) -> Base:
    """A registered base model. Raises Infeasible when it is not to be had."""
    return load(entry)


def load(entry: BaseModelEntry) -> Base:
    """Load a model: safetensors only, no remote code. Raises Infeasible when it is not to be had."""
    try:
        model = _load(entry)
        tokenizer = AutoTokenizer.from_pretrained(entry.source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise Infeasible(f"base model {entry.name} cannot be loaded from {entry.source}: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if entry.facts.family == "encoder" and tokenizer.mask_token_id is None:
        raise Infeasible(f"the tokenizer of {entry.name} has no mask token, which an encoder needs")
    require_unpadded(model.eval())
    return Base(entry=entry, model=model, tokenizer=tokenizer)


def tokenizer(entry: BaseModelEntry, judge: JudgeSpec) -> PreTrainedTokenizerBase:
    """The base's tokenizer; for rows with tools, with a chat template that shows them. Raises Infeasible if none can.

    The base's own template stays where it shows tools.
    """
    return _showing_tools(entry) if judge.tools else base(entry).tokenizer


@lru_cache(maxsize=4)
def _showing_tools(entry: BaseModelEntry) -> PreTrainedTokenizerBase:
    own = base(entry).tokenizer
    named = own.chat_template if isinstance(own.chat_template, dict) else {"default": own.chat_template or ""}
    template = chat_template.in_use(named) or ""
    showing = chat_template.with_tools(template)
    if showing is None:
        raise Infeasible(f"the chat template of base model {entry.name} leaves out tools or the calls of them")
    if showing == template:
        return own
    extended = copy.deepcopy(own)
    extended.chat_template = showing
    return extended


def _load(entry: BaseModelEntry) -> PreTrainedModel:
    settings = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    model: PreTrainedModel
    match entry.facts.family:
        case "decoder":
            model = AutoModelForCausalLM.from_pretrained(entry.source, **settings)
        case "encoder":
            with torch.random.fork_rng(devices=[]):
                model, info = AutoModelForMaskedLM.from_pretrained(entry.source, output_loading_info=True, **settings)
            start_head(model, info["missing_keys"])
    return model


@lru_cache(maxsize=16)
def rows(file: Path) -> Rows:
    """The rows of a JSONL blob. Blobs are content-addressed, so a path never changes its content."""
    with file.open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


@lru_cache(maxsize=16)
def calibration(entry: BaseModelEntry, judge: JudgeSpec, train: Path) -> tuple[tuple[int, ...], ...]:
    """Token ids of the first training rows: what a model is measured on before it is edited."""
    render = renderer(tokenizer(entry, judge), judge)
    encoder = entry.facts.family == "encoder"
    rendered = (
        tokens
        for row in rows(train)
        for tokens in (render.both_ways(row["text"]) if encoder else render.answers(row, judge.kind))
    )
    return tuple(tokens.ids[:CALIBRATION_TOKENS] for tokens in islice(rendered, CALIBRATION_ROWS))


def examples(entry: BaseModelEntry, judge: JudgeSpec, train: Path, algorithm: Algorithm) -> tuple[Example, ...]:
    """The training rows as the examples of an algorithm. Its hyperparameters do not matter to them."""
    return _examples(entry, judge, train, type(algorithm))


@lru_cache(maxsize=16)
def _examples(entry: BaseModelEntry, judge: JudgeSpec, train: Path, kind: type[Algorithm]) -> tuple[Example, ...]:
    render = renderer(tokenizer(entry, judge), judge)
    learn = objective(kind())
    return tuple(example for row in rows(train) for example in learn.examples(row, judge.kind, render))
