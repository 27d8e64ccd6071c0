"""Export a judged model: adapter, merged weights, model card, reproduction script.

merged/    model.safetensors in the type of the base, config and tokenizer from `save_pretrained`, the base's
           generation_config.json; README.md, luthier.json;
           reproduce/{reproduce.py, train.jsonl, validation.jsonl, requirements.txt};
           reward_model/ if one was trained, for transformers' AutoModelForSequenceClassification
adapter/   PEFT's adapter_model.safetensors and adapter_config.json; tokenizer, README.md, luthier.json

Virtual tokens cannot be merged. There is no merged/ then, and adapter/ contains reproduce/.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from peft import PeftModelForCausalLM
from transformers import PreTrainedTokenizerBase

from luthier.trial import Metrics
from luthier.worker_protocol import Assignment
from workers.export import reproduction
from workers.export.like_base import own_pad, save_model, stop_at
from workers.export.model_card import card
from workers.train.forward import CausalModel
from workers.train.reward_model import Scorer
from workers.train.rollouts.stopping import stop_ids

ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"
RECORD: Final = "luthier.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An artifact in a folder, ready to upload."""

    kind: Literal["adapter", "merged"]
    folder: Path


def export(
    folder: Path,
    *,
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Path | None,
    scorer: Scorer | None = None,
    assignment: Assignment,
    metrics: Metrics,
    test_metrics: Metrics,
    train_rows: Sequence[dict[str, Any]],
    validation_rows: Sequence[dict[str, Any]],
    stage_scores: Sequence[Mapping[str, float]] = (),
) -> list[Exported]:
    """Write the artifacts under `folder` and return them, the most complete one first.

    model         the merged model, or PEFT's if the update cannot be merged
    adapter       folder where PEFT saved the adapter, if there is one
    scorer        the reward model, if the design trained one
    stage_scores  scores on the first held-out rows after each stage but the last
    """
    plain = model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model
    if assignment.design.architecture.rope_factor is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.model_max_length = (
            plain.config.max_position_embeddings
        )  # otherwise it would truncate to the old context
    tokenizer = own_pad(tokenizer, Path(assignment.base.source))
    trained = reproduction.trained_rows(train_rows, assignment, tokenizer)
    record = _record(assignment, metrics, test_metrics)
    describe = partial(
        card,
        model=plain,
        tokenizer=tokenizer,
        assignment=assignment,
        metrics=metrics,
        test_metrics=test_metrics,
        rows=len(train_rows),
        trained=len(trained),
        stage_scores=stage_scores,
    )
    exported: list[Exported] = []
    if plain is model:
        exported.append(Exported(kind="merged", folder=folder / "merged"))
        ends = stop_ids(plain, tokenizer)
        save_model(plain, folder / "merged", Path(assignment.base.source))
        stop_at(folder / "merged", ends)
    if adapter is not None:
        exported.append(Exported(kind="adapter", folder=folder / "adapter"))
        _copy_adapter(adapter, folder / "adapter", assignment.base.source)
    reproduction.write(
        exported[0].folder / "reproduce",
        model=plain,
        tokenizer=tokenizer,
        assignment=assignment,
        metrics=metrics,
        train_rows=trained,
        scored_rows=validation_rows[: assignment.judge.max_rows],
    )
    if scorer is not None:
        scorer.save(exported[0].folder / "reward_model", tokenizer)
    for artifact in exported:
        tokenizer.save_pretrained(artifact.folder)
        (artifact.folder / "README.md").write_text(describe(artifact.kind), encoding="utf-8")
        (artifact.folder / RECORD).write_text(record, encoding="utf-8")
    return exported


def _copy_adapter(saved: Path, folder: Path, base: str) -> None:
    """Copy PEFT's two files. The config names the base model as registered, and is deterministic."""
    folder.mkdir(parents=True)
    shutil.copyfile(saved / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    config = json.loads((saved / ADAPTER_CONFIG).read_text())
    config["base_model_name_or_path"] = base
    for modules in ("target_modules", "feedforward_modules"):  # sets in PEFT, in random order
        if isinstance(config.get(modules), list):
            config[modules].sort()
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))


def _record(assignment: Assignment, metrics: Metrics, test_metrics: Metrics) -> str:
    """Return the contents of luthier.json: enough to find the trial, and to judge the model in the same way."""
    return json.dumps(
        {
            "design": json.loads(assignment.design.canonical()),
            "design_digest": assignment.design.digest(),
            "seed": assignment.seed,
            "base": assignment.base.model_dump(mode="json"),
            "train": assignment.train,
            "judge": assignment.judge.model_dump(mode="json"),
            "metrics": metrics.model_dump(mode="json"),
            "test_metrics": test_metrics.model_dump(mode="json"),
            "job_id": assignment.job_id,
            "trial_id": assignment.trial_id,
            "trial_number": assignment.number,
            "versions": {name: reproduction.library_version(name) for name in ("torch", "transformers", "peft")},
        },
        indent=2,
        ensure_ascii=False,
    )
