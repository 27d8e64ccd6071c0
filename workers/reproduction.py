"""The reproduction of an exported model: a script on TRL and PEFT, the rows it trains on and is scored on, and the
library versions it needs. What this is *not*: another way to train here; it runs wherever the artifact is taken to.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from luthier.dataset.rows import write_rows
from luthier.design import AdapterUpdate, Design, Placed, Update, VirtualTokens
from luthier.task import DataKind
from luthier.trial import Metrics
from luthier.wire import Assignment
from workers.judge import renderer
from workers.templates import render
from workers.train.algorithms import objective
from workers.train.data.rendering import Message, Row
from workers.train.updates.adaptive import PRUNINGS, SETTLED, START, WARMUP
from workers.train.updates.low_rank import ALL_LINEAR, places

# What the script needs beyond a worker's own libraries, in the versions that the tests reproduce designs with.
TRAINERS: Final = {"trl": "1.16.0", "datasets": "5.2.0"}

# The module of the trainer that teaches each algorithm, and the name of the trainer.
_TRAINER_OF: Final = {
    "clm": ("trl", "SFT"),
    "sft": ("trl", "SFT"),
    "dpo": ("trl", "DPO"),
    "ipo": ("trl", "DPO"),
    "simpo": ("trl.experimental.cpo", "CPO"),
    "orpo": ("trl.experimental.orpo", "ORPO"),
}

_CONTENT: Final = {  # the columns of a row that hold a prompt or an answer, and who speaks there
    DataKind.TEXT: {},
    DataKind.PAIRS: {"prompt": "user", "completion": "assistant"},
    DataKind.CHAT: {},
    DataKind.PREFERENCE: {"prompt": "user", "chosen": "assistant", "rejected": "assistant"},
}


_PEFT_CONFIG: Final = {  # LoRA's for all other adapters
    "vera": "VeraConfig",
    "ia3": "IA3Config",
    "oft": "OFTConfig",
    "adalora": "AdaLoraConfig",
    "prompt": "PromptTuningConfig",
    "prefix": "PrefixTuningConfig",
}

# TRL's own reference is a second adapter beside the first, of which PEFT makes another start (pissa) or none.
_OWN_REFERENCE: Final = ("pissa", "vera", "adalora", "prompt", "prefix")


def learnt_rows(rows: Iterable[Row], assignment: Assignment, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """The rows that every stage learns from: those with a target within the length limit, in their order."""
    render_row = renderer(tokenizer, assignment.judge, assignment.base.facts.context)
    objectives = [objective(stage.algorithm) for stage in assignment.design.stages]
    return [row for row in rows if all(o.examples(row, assignment.judge.kind, render_row) for o in objectives)]


def write(
    folder: Path,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    assignment: Assignment,
    metrics: Metrics,
    train_rows: Sequence[Row],
    scored_rows: Sequence[Row],
) -> None:
    """Write reproduce.py, train.jsonl, validation.jsonl and requirements.txt into `folder`.

    `train_rows` are those that were learnt from, `scored_rows` those that `metrics` were found on.
    """
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(write_rows(map(dict, train_rows)))
    (folder / "validation.jsonl").write_bytes(write_rows(map(dict, scored_rows)))
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in _requirements(assignment.design)))
    script = _script(model, tokenizer, assignment, metrics, [*train_rows, *scored_rows])
    (folder / "reproduce.py").write_text(script, encoding="utf-8")


def library_version(name: str) -> str:
    """The installed version, without the label of a build (`+cpu`), which no package index knows."""
    return importlib.metadata.version(name).partition("+")[0]


def _requirements(design: Design) -> list[str]:
    used = ["torch", "transformers", "accelerate", *(["peft"] if _adapted(design) else [])]
    versions = {name: library_version(name) for name in used} | TRAINERS
    return [f"{name}=={version}" for name, version in versions.items()]


def _script(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    assignment: Assignment,
    metrics: Metrics,
    rows: Sequence[Row],
) -> str:
    design, judge, facts = assignment.design, assignment.judge, assignment.base.facts
    render_row = renderer(tokenizer, judge, facts.context)
    columns = _CONTENT[judge.kind]
    contents = [row[name] for row in rows for name in columns]
    wraps = bool(tokenizer.chat_template) and any(isinstance(content, str) for content in contents)
    used = sorted({_TRAINER_OF[stage.algorithm.kind] for stage in design.stages})
    imports = {
        module: sorted(f"{name}{part}" for of, name in used if of == module for part in ("Config", "Trainer"))
        for module, _ in used
    }
    return render(
        "reproduce.py.jinja",
        design=design,
        adapted=_adapted(design),
        imports=imports,
        trainers=_TRAINER_OF,
        encoded_pairs=[name for module, name in used if module != "trl"],
        peft=_from_peft(design),
        own_reference=_OWN_REFERENCE,
        virtual=any(isinstance(stage.update, VirtualTokens) for stage in design.stages),
        places=[_places(model, stage.update) for stage in design.stages],
        adaptive={"start": START, "warmup": WARMUP, "settled": SETTLED, "prunings": PRUNINGS},
        seed=assignment.seed,
        source=assignment.base.source,
        kind=judge.kind.value,
        max_length=render_row.window if judge.kind is DataKind.TEXT else render_row.max_tokens,
        perplexity=metrics.perplexity,
        kept_layers=model.config.kept_layers if design.architecture.layers else None,
        layer_types=bool(getattr(model.config, "layer_types", None)),
        kv_heads=design.architecture.kv_heads,
        window=design.architecture.window,
        chat_template=bool(tokenizer.chat_template),
        tools=any(row.get("tools") for row in rows),
        wraps=wraps,
        columns={
            name: f'messages("{role}", row["{name}"])' if wraps else f'row["{name}"]' for name, role in columns.items()
        },
        answer=next((name for name, role in columns.items() if role == "assistant"), None),
        trl_tokenises=bool(columns) and all(map(_survives_arrow, contents)),
    )


def _adapted(design: Design) -> bool:
    return any(isinstance(stage.update, AdapterUpdate) for stage in design.stages)


def _from_peft(design: Design) -> list[str]:
    """The names that the script imports from PEFT."""
    kinds = {stage.update.kind for stage in design.stages if isinstance(stage.update, AdapterUpdate)}
    loaded = ["PeftModel"] if kinds & {"prompt", "prefix"} else []
    return sorted({_PEFT_CONFIG.get(kind, "LoraConfig") for kind in kinds} | {*loaded}) + ["get_peft_model"] * bool(
        kinds
    )


def _places(model: PreTrainedModel, update: Update) -> list[str] | str:
    """PEFT's target modules of an update, where it can choose among them."""
    return places(model, update.placement) if isinstance(update, Placed) else ALL_LINEAR


def _survives_arrow(content: str | Sequence[Message]) -> bool:
    """Whether a table holds a prompt or an answer as it is: columns of messages gain each other's missing fields."""
    return isinstance(content, str) or all(set(message) == {"role", "content"} for message in content)
