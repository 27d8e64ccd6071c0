"""The model that answers: one base in memory, on which adapters take turns; or a whole model that a trial has left."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModelForCausalLM
from peft.tuners.tuners_utils import BaseTuner
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from luthier.errors import UserError
from luthier.models.base_model import BaseModelEntry, read_facts
from workers import cache
from workers.export.artifacts import ADAPTER_CONFIG, RECORD
from workers.train.forward import CausalModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    context: int  # tokens of prompt and answer together


class Models:
    """Loads what a question is for, and lets go of what was there before as far as it must."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._base: cache.Base | None = None
        self._adapter: Path | None = None
        self._adapted: PeftModelForCausalLM | None = None

    def load(self, base: BaseModelEntry | None, folder: Path | None) -> Loaded:
        """A registered base model, or what the folder holds: a merged model or an adapter as the export writes them.

        Raises UserError for an encoder, and Infeasible where a model cannot be loaded.
        """
        adapter = folder if folder is not None and (folder / ADAPTER_CONFIG).is_file() else None
        entry = _entry(base, folder, adapter)
        if entry.facts.family == "encoder":
            raise UserError(
                f"{entry.facts.architecture} is an encoder: it fills masked tokens and does not answer", param="model"
            )
        if self._adapter != adapter:
            self._take_off()
        loaded = self._on_device(entry)
        model: CausalModel = loaded.model
        tokenizer = loaded.tokenizer
        if adapter is not None:
            model = self._adapted = self._adapted or PeftModelForCausalLM.from_pretrained(loaded.model, adapter)
            self._adapter = adapter
            torch.nn.Module.to(model, self.device)
            tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=False)
        return Loaded(model=model.eval(), tokenizer=tokenizer, context=entry.facts.context)

    def _on_device(self, entry: BaseModelEntry) -> cache.Base:
        if self._base is None or self._base.entry != entry:
            self._base = None
            cache.base.cache_clear()
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._base = cache.base(entry)
            torch.nn.Module.to(self._base.model, self.device)
        return self._base

    def _take_off(self) -> None:
        """The base as it was, for the next adapter. Virtual tokens stand beside it and leave it alone."""
        if self._adapted is not None and isinstance(self._adapted.base_model, BaseTuner):
            self._adapted.base_model.unload()
        self._adapter = self._adapted = None


def _entry(base: BaseModelEntry | None, folder: Path | None, adapter: Path | None) -> BaseModelEntry:
    if adapter is not None:  # the base that it was trained on, whatever is registered under the name by now
        return BaseModelEntry.model_validate(json.loads((adapter / RECORD).read_text("utf-8"))["base"])
    if folder is not None:
        return BaseModelEntry(name="exported", source=str(folder), facts=read_facts(folder))
    assert base is not None, "a question is for a base model or for the weights in a folder"
    return base
