"""Load the export of an earlier trial: a merged model, or an adapter on its base."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

from peft import PeftModelForCausalLM

from luthier.errors import BlobMissing, Infeasible, TrialFailed, UserError
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.worker_protocol import Artifact
from workers import cache
from workers.import_model.standard_config import standard
from workers.service_client import ServiceClient
from workers.train.forward import CausalModel


def load(service: ServiceClient, base: BaseModelEntry, weights: Artifact, scratch: Path) -> CausalModel:
    """Download an artifact into `scratch` and load it on the CPU.

    Raises TrialFailed if its files were deleted, and Infeasible if it cannot be loaded.
    """
    folder = scratch / weights.kind
    folder.mkdir()
    try:
        for name, digest in weights.files.items():
            if Path(name).name == name:  # subfolders hold the reproduction script and the reward model
                shutil.move(service.get_blob(digest), folder / name)
    except BlobMissing as error:
        raise TrialFailed(f"the weights of the champion were deleted: {error.message}") from error
    match weights.kind:
        case "merged":
            try:
                facts = read_facts(folder, standard(folder))
            except UserError as error:
                raise Infeasible(f"the champion is no whole model: {error.message}") from error
            return cache.load(BaseModelEntry(name="champion", source=str(folder), facts=facts)).model
        case "adapter":
            model = copy.deepcopy(cache.base(base).model)
            return PeftModelForCausalLM.from_pretrained(model, folder).eval()
