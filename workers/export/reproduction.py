"""Write the reproduction of an exported model: a TRL and PEFT script, its rows, and the library versions it needs.

The script is independent of Luthier, and runs wherever the artifact is taken.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from luthier.algorithms import Grpo, Raft, RewardModel, Rloo
from luthier.dataset.messages import Message
from luthier.dataset.rows import write_rows
from luthier.design import Design
from luthier.task import DataKind
from luthier.trial import Metrics
from luthier.updates import (
    AdaLora,
    Dora,
    Ia3,
    Lora,
    LoraPlus,
    Oft,
    Pissa,
    QLora,
    RandLora,
    RsLora,
    Update,
    Vera,
    VirtualTokens,
)
from luthier.worker_protocol import Assignment
from workers.evaluate.judge import renderer
from workers.export import exported_tokens
from workers.templates import render, rewards
from workers.train import updates
from workers.train.algorithms import objective, trainer
from workers.train.architectures.edits import per_layer, place_of_layers
from workers.train.average import EXPONENT
from workers.train.data.tokenize import Row
from workers.train.updates.adalora import PRUNINGS, SETTLED, WARMUP
from workers.train.updates.lora import low_rank_targets
from workers.train.updates.partial import last_layers
from workers.train.updates.targets import places, rescaled_targets

# Libraries of the script that a worker does not need, in the versions with which the tests run it.
TRAINERS: Final = {"trl": "1.16.0", "datasets": "5.2.0"}

ENCODED_PAIRS: Final = ("CPO", "ORPO")  # TRL's trainers whose own tokens of a pair differ from the judge's
READY_MADE: Final = ("DPO", "KTO")  # TRL's trainers that are given tokens where rows are exported with theirs
TEMPLATE: Final = "chat_template.jinja"
_GRADING: Final = ("rapidfuzz", "nltk", "rouge-score", "math-verify")  # libraries of the graders

_CONTENT: Final = {  # columns that hold a prompt or an answer, and their role
    DataKind.TEXT: {},
    DataKind.PAIRS: {"prompt": "user", "completion": "assistant"},
    DataKind.CHAT: {},
    DataKind.PREFERENCE: {"prompt": "user", "chosen": "assistant", "rejected": "assistant"},
    DataKind.PROMPTS: {"prompt": "user"},
    DataKind.UNPAIRED: {"prompt": "user", "completion": "assistant"},
}


def trained_rows(rows: Iterable[Row], assignment: Assignment, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Return the rows that some stage trains on: those with a target token within the length limit, in order."""
    render_row = renderer(tokenizer, assignment.judge)
    objectives = [objective(stage.algorithm) for stage in assignment.design.stages]
    return [row for row in rows if any(o.examples(row, assignment.judge.kind, render_row) for o in objectives)]


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

    Rows whose tokens the script would not find have them in a column (see `exported_tokens`).
    For rows with tools also the chat template, and for online RL the grader with rewards.py. `train_rows` are the rows
    that were trained on; `metrics` were measured on `scored_rows`.
    """
    folder.mkdir()
    rows = [*train_rows, *scored_rows]
    facts = _encoding(tokenizer, assignment, rows)
    show, kind = renderer(tokenizer, assignment.judge), assignment.judge.kind
    whole = any(stage.algorithm.kind == "clm" for stage in assignment.design.stages)
    encoded = _encodes(assignment) and exported_tokens.script_differs(rows, kind, show, facts, full_text=whole)
    for name, some in (("train.jsonl", train_rows), ("validation.jsonl", scored_rows)):
        tokens = [exported_tokens.with_tokens(row, kind, show, full_text=whole) for row in some if encoded]
        (folder / name).write_bytes(write_rows(tokens or map(dict, some)))
    template = tokenizer.chat_template if assignment.judge.tools else None
    if isinstance(template, str):  # the base's own may not render tools
        (folder / TEMPLATE).write_bytes(template.encode())
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in _requirements(assignment.design)))
    if metrics.reward is not None and assignment.judge.grader is not None and _played(assignment.design):
        (folder / "grader.json").write_text(assignment.judge.grader.model_dump_json(indent=2), encoding="utf-8")
        (folder / "rewards.py").write_bytes(Path(rewards.__file__).read_bytes())
    if assignment.judge.environment is not None and _played(assignment.design):
        script = render(
            "reproduce_environment.jinja",
            environment=assignment.judge.environment,
            base=assignment.base.name,
            recipe=assignment.design.recipe,
        )
    else:
        script = _script(model, tokenizer, assignment, metrics, facts | {"encoded": encoded})
    (folder / "reproduce.py").write_text(script, encoding="utf-8")


def library_version(name: str) -> str:
    """Return the installed version, without a build label such as `+cpu`, which package indexes do not have."""
    return importlib.metadata.version(name).partition("+")[0]


def _requirements(design: Design) -> list[str]:
    used = ["torch", "transformers", "accelerate", *(["peft"] if _adapted(design) else [])]
    used += ["bitsandbytes"] if _rounded(design) else []
    masked = any(stage.algorithm.kind == "mlm" for stage in design.stages)
    versions = {name: library_version(name) for name in used} | (
        {"datasets": TRAINERS["datasets"]} if masked else TRAINERS
    )
    if _played(design) and not _rewarding(design):
        versions |= {name: library_version(name) for name in _GRADING}
    return [f"{name}=={version}" for name, version in versions.items()]


def _script(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    assignment: Assignment,
    metrics: Metrics,
    encoding: Mapping[str, Any],
) -> str:
    design, judge = assignment.design, assignment.judge
    facts = assignment.base.facts
    encoder = facts.family == "encoder"
    trainers = {stage.algorithm.kind: trainer(stage.algorithm) for stage in design.stages}
    used = sorted({found for found in trainers.values() if found is not None and found[0] != "transformers"})
    imports = {
        module: sorted(
            (f"{name}{part}" for of, name in used if of == module for part in ("Config", "Trainer")), key=str.lower
        )
        for module, _ in used
    }
    config = model.config.get_text_config(decoder=True)  # of a multimodal wrapper: that of its text part
    return render(
        "reproduce.py.jinja",
        **encoding,
        design=design,
        adapted=_adapted(design),
        imports=imports,
        trainers={kind: found or ("", "") for kind, found in trainers.items()},
        ready_made=[name for _, name in used if name in READY_MADE and encoding["encoded"]],
        encoded_pairs=[name for _, name in used if name in ENCODED_PAIRS],
        peft=_from_peft(design),
        own_reference=[stage.update.kind for stage in design.stages if updates.own_reference(stage.update)],
        virtual=any(isinstance(stage.update, VirtualTokens) for stage in design.stages),
        targets=[_targets(model, stage.update) for stage in design.stages],
        adaptive={"start": AdaLora.START, "warmup": WARMUP, "settled": SETTLED, "prunings": PRUNINGS},
        average_exponent=EXPONENT,
        seed=assignment.seed,
        source=assignment.base.source,
        teacher=None if assignment.teacher is None else assignment.teacher.source,
        likelihood=metrics.likelihood,
        judge=judge,
        rounded=_rounded(design),
        encoder=encoder,
        tied_head=facts.head == "tied",
        auto_model="AutoModelForMaskedLM" if encoder else "AutoModelForCausalLM",
        layers_place=place_of_layers(model) or "layers",
        last=last_layers(model),
        played=_played(design) and not _rewarding(design),
        rewarding=_rewarding(design),
        initializer_range=getattr(config, "initializer_range", None),
        reward=metrics.reward,
        max_new_tokens=judge.max_new_tokens,
        max_generations=judge.max_generations,
        kept_layers=config.kept_layers if design.architecture.layers else None,
        per_layer=[name for name in per_layer(config) if name != "kept_layers"],
        layer_types=bool(getattr(config, "layer_types", None)),
        kv_heads=design.architecture.kv_heads,
        window=design.architecture.window,
        rope_factor=design.architecture.rope_factor,
        rope_rule=design.architecture.rope_rule,
        own_template=TEMPLATE if judge.tools and isinstance(tokenizer.chat_template, str) else None,
    )


def _encoding(tokenizer: PreTrainedTokenizerBase, assignment: Assignment, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the facts with which the script's template turns a row into tokens."""
    judge = assignment.judge
    columns = _CONTENT[judge.kind]
    contents = [row[name] for row in rows for name in columns]
    wraps = bool(tokenizer.chat_template) and any(isinstance(content, str) for content in contents)
    tools = any(row.get("tools") for row in rows)
    return {
        "kind": judge.kind.value,
        "max_length": judge.window if judge.kind is DataKind.TEXT else judge.max_tokens,
        "chat_template": bool(tokenizer.chat_template),
        "tools": tools,
        "wraps": wraps,
        "columns": {
            name: f'messages("{role}", row["{name}"])' if wraps else f'row["{name}"]' for name, role in columns.items()
        },
        "answer": next((name for name, role in columns.items() if role == "assistant"), None),
        "trl_tokenises": bool(columns) and all(map(_survives_arrow, contents)) and not tools,
    }


def _encodes(assignment: Assignment) -> bool:
    """Return whether rows may be exported with their tokens. A reward model also scores answers that are not there."""
    design, judge = assignment.design, assignment.judge
    alone = judge.environment is not None and _played(design)  # its script reads no rows
    return assignment.base.facts.family == "decoder" and not _rewarding(design) and not alone


def _played(design: Design) -> bool:
    """Return whether a stage is online RL: trained on the model's own answers."""
    return any(isinstance(stage.algorithm, Grpo | Rloo | Raft) for stage in design.stages)


def _rewarding(design: Design) -> bool:
    """Return whether the design trains a reward model, which then replaces the grader."""
    return any(isinstance(stage.algorithm, RewardModel) for stage in design.stages)


def _rounded(design: Design) -> bool:
    return any(stage.update.kind == "qlora" for stage in design.stages)


def _adapted(design: Design) -> bool:
    return any(updates.peft_config(stage.update) is not None for stage in design.stages)


def _from_peft(design: Design) -> list[str]:
    """Return the names that the script imports from PEFT."""
    configs = {config for stage in design.stages if (config := updates.peft_config(stage.update)) is not None}
    virtual = any(isinstance(stage.update, VirtualTokens) for stage in design.stages)
    return sorted(configs | ({"PeftModel"} if virtual else set())) + ["get_peft_model"] * bool(configs)


def _targets(model: PreTrainedModel, update: Update) -> Mapping[str, list[str] | str]:
    """Return the arguments of PEFT's configuration that say where the adapters of an update are."""
    match update:
        case Lora() | RsLora() | Dora() | LoraPlus():
            return low_rank_targets(model, update)
        case Pissa():
            return {"target_modules": places(model, update.placement)}
        case Ia3():
            return rescaled_targets(model)
        case Vera() | RandLora() | AdaLora() | Oft() | QLora():
            return {"target_modules": places(model, "all")}
        case _:
            return {}


def _survives_arrow(content: str | Sequence[Message]) -> bool:
    """Return whether an Arrow table stores a prompt or an answer unchanged. It adds missing fields to messages."""
    return isinstance(content, str) or all(set(message) == {"role", "content"} for message in content)
