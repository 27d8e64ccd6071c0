"""The model in memory: one base model, with adapters swapped on it, or the merged model of a trial."""

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
from workers.import_model.standard_config import standard
from workers.train.forward import CausalModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that is ready to generate."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    context: int  # most tokens of prompt and answer together


class Models:
    """Loads the model for each question, and frees the previous one only as far as needed."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._base: cache.Base | None = None
        self._adapter: Path | None = None
        self._adapted: PeftModelForCausalLM | None = None

    def load(self, base: BaseModelEntry | None, folder: Path | None) -> Loaded:
        """Return a registered base model, or the exported model in `folder`: merged, or an adapter.

        Raises UserError for an encoder, and Infeasible if a model cannot be loaded.
        """
        adapter = folder if folder is not None and (folder / ADAPTER_CONFIG).is_file() else None
        entry = _entry(base, folder, adapter)
        if entry.facts.family == "encoder":
            raise UserError(
                f"{entry.facts.architecture} is an encoder, which fills masked tokens and cannot generate",
                param="model",
            )
        if self._adapter != adapter:
            self._remove_adapter()
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

    def _remove_adapter(self) -> None:
        """Restore the base model for the next adapter. Virtual tokens never changed it."""
        if self._adapted is not None and isinstance(self._adapted.base_model, BaseTuner):
            self._adapted.base_model.unload()
        self._adapter = self._adapted = None


def _entry(base: BaseModelEntry | None, folder: Path | None, adapter: Path | None) -> BaseModelEntry:
    if adapter is not None:  # the base it was trained on; another may have that name now
        return BaseModelEntry.model_validate(json.loads((adapter / RECORD).read_text("utf-8"))["base"])
    if folder is not None:
        return BaseModelEntry(name="exported", source=str(folder), facts=read_facts(folder, standard(folder)))
    assert base is not None, "a question names a base model or a folder with weights"
    return base
