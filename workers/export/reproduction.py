"""The reproduction of an exported model: a script on TRL and PEFT, the rows it trains on and is scored on, and the
library versions it needs. What this is *not*: another way to train here; it runs wherever the artifact is taken to.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from luthier.dataset.messages import Message
from luthier.dataset.rows import write_rows
from luthier.design import AdaLora, AdapterUpdate, Design, Grpo, Placed, Raft, RewardModel, Rloo, Update, VirtualTokens
from luthier.task import DataKind
from luthier.trial import Metrics
from luthier.worker_protocol import Assignment
from workers.evaluate.judge import renderer
from workers.templates import render, rewards
from workers.train.algorithms import objective
from workers.train.architectures.edits import place_of_layers
from workers.train.data.tokenize import Row
from workers.train.updates.adalora import PRUNINGS, SETTLED, WARMUP
from workers.train.updates.lora import ALL_LINEAR, places

# What the script needs beyond a worker's own libraries, in the versions that the tests reproduce designs with.
TRAINERS: Final = {"trl": "1.16.0", "datasets": "5.2.0"}

TEMPLATE: Final = "chat_template.jinja"
_NO_TRAINER: Final = ("", "")  # the script brings a loop of its own

# The module of the trainer that teaches each algorithm, and the name of the trainer.
_TRAINER_OF: Final = {
    "clm": ("trl", "SFT"),
    "sft": ("trl", "SFT"),
    "dpo": ("trl", "DPO"),
    "ipo": ("trl", "DPO"),
    "simpo": ("trl.experimental.cpo", "CPO"),
    "orpo": ("trl.experimental.orpo", "ORPO"),
    "grpo": ("trl", "GRPO"),
    "rloo": ("trl", "RLOO"),
    "raft": _NO_TRAINER,
    "kto": ("trl", "KTO"),
    "reward_model": ("trl", "Reward"),
    "mlm": ("transformers", ""),  # TRL has no trainer for it
}

_GRADING: Final = ("rapidfuzz", "nltk", "rouge-score", "math-verify")  # what graders compare with

_CONTENT: Final = {  # the columns of a row that hold a prompt or an answer, and who speaks there
    DataKind.TEXT: {},
    DataKind.PAIRS: {"prompt": "user", "completion": "assistant"},
    DataKind.CHAT: {},
    DataKind.PREFERENCE: {"prompt": "user", "chosen": "assistant", "rejected": "assistant"},
    DataKind.PROMPTS: {"prompt": "user"},
    DataKind.UNPAIRED: {"prompt": "user", "completion": "assistant"},
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
    """The rows that are learnt from, by some stage at least: those with a target within the length limit, in order."""
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
    """Write reproduce.py, train.jsonl, validation.jsonl and requirements.txt into `folder`; for rows with tools, also
    the chat template that shows them.

    `train_rows` are those that were learnt from, `scored_rows` those that `metrics` were found on.
    """
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(write_rows(map(dict, train_rows)))
    (folder / "validation.jsonl").write_bytes(write_rows(map(dict, scored_rows)))
    template = tokenizer.chat_template if assignment.judge.tools else None
    if isinstance(template, str):  # the base's own may leave out tools
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
        script = _script(model, tokenizer, assignment, metrics, [*train_rows, *scored_rows])
    (folder / "reproduce.py").write_text(script, encoding="utf-8")


def library_version(name: str) -> str:
    """The installed version, without the label of a build (`+cpu`), which no package index knows."""
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
    rows: Sequence[Row],
) -> str:
    design, judge = assignment.design, assignment.judge
    columns = _CONTENT[judge.kind]
    contents = [row[name] for row in rows for name in columns]
    wraps = bool(tokenizer.chat_template) and any(isinstance(content, str) for content in contents)
    facts = assignment.base.facts
    encoder = facts.family == "encoder"
    used = sorted({_TRAINER_OF[stage.algorithm.kind] for stage in design.stages} - {_NO_TRAINER, _TRAINER_OF["mlm"]})
    imports = {
        module: sorted(
            (f"{name}{part}" for of, name in used if of == module for part in ("Config", "Trainer")), key=str.lower
        )
        for module, _ in used
    }
    tools = any(row.get("tools") for row in rows)
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
        adaptive={"start": AdaLora.START, "warmup": WARMUP, "settled": SETTLED, "prunings": PRUNINGS},
        seed=assignment.seed,
        source=assignment.base.source,
        kind=judge.kind.value,
        max_length=judge.window if judge.kind is DataKind.TEXT else judge.max_tokens,
        likelihood=metrics.likelihood,
        judge=judge,
        rounded=_rounded(design),
        encoder=encoder,
        tied_head=facts.head == "tied",
        auto_model="AutoModelForMaskedLM" if encoder else "AutoModelForCausalLM",
        layers_place=place_of_layers(model) or "layers",
        played=_played(design) and not _rewarding(design),
        rewarding=_rewarding(design),
        initializer_range=getattr(model.config, "initializer_range", None),
        reward=metrics.reward,
        max_new_tokens=judge.max_new_tokens,
        max_generations=judge.max_generations,
        kept_layers=model.config.kept_layers if design.architecture.layers else None,
        layer_types=bool(getattr(model.config, "layer_types", None)),
        kv_heads=design.architecture.kv_heads,
        window=design.architecture.window,
        rope_factor=design.architecture.rope_factor,
        rope_rule=design.architecture.rope_rule,
        chat_template=bool(tokenizer.chat_template),
        tools=tools,
        own_template=TEMPLATE if judge.tools and isinstance(tokenizer.chat_template, str) else None,
        wraps=wraps,
        columns={
            name: f'messages("{role}", row["{name}"])' if wraps else f'row["{name}"]' for name, role in columns.items()
        },
        answer=next((name for name, role in columns.items() if role == "assistant"), None),
        trl_tokenises=bool(columns) and all(map(_survives_arrow, contents)) and not tools,
    )


def _played(design: Design) -> bool:
    """Whether a stage learns from answers of the model's own."""
    return any(isinstance(stage.algorithm, Grpo | Rloo | Raft) for stage in design.stages)


def _rewarding(design: Design) -> bool:
    """Whether those answers are scored by a reward model of the design's own, instead of a grader."""
    return any(isinstance(stage.algorithm, RewardModel) for stage in design.stages)


def _rounded(design: Design) -> bool:
    return any(stage.update.kind == "qlora" for stage in design.stages)


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
