"""What an earlier trial has exported, as a model again: a whole one, or an adapter on its base."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

from peft import PeftModelForCausalLM

from luthier.errors import BlobMissing, TrialFailed
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.worker_protocol import Artifact
from workers import cache
from workers.service_client import ServiceClient
from workers.train.forward import CausalModel


def load(service: ServiceClient, base: BaseModelEntry, weights: Artifact, scratch: Path) -> CausalModel:
    """Fetch the artifact into the folder and load it. Raises TrialFailed where it is not there any more, or Infeasible
    where it cannot be loaded."""
    folder = scratch / weights.kind
    folder.mkdir()
    try:
        for name, digest in weights.files.items():
            if Path(name).name == name:  # what lies in folders of the export is not the model's
                shutil.move(service.get_blob(digest), folder / name)
    except BlobMissing as error:
        raise TrialFailed(f"the champion's weights are gone: {error.message}") from error
    match weights.kind:
        case "merged":
            entry = BaseModelEntry(name="champion", source=str(folder), facts=read_facts(folder))
            return cache.load(entry).model
        case "adapter":
            model = copy.deepcopy(cache.base(base).model)
            return PeftModelForCausalLM.from_pretrained(model, folder).eval()
