"""The reproduction script computes what the worker does: the same targets and the same edits."""

from __future__ import annotations

import ast
import copy
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from luthier.algorithms import Clm, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import TrialFailed
from luthier.task import DataKind, JudgeSpec
from luthier.trial import Metrics
from luthier.updates import Full
from luthier.worker_protocol import Assignment
from tests import data_samples
from tests.conversations import CONVERSATIONS, TEMPLATES, TOOLS, speaking
from tests.textbook import as_conversation, largest_difference
from workers.cache import Base
from workers.evaluate.judge import renderer
from workers.export import exported_tokens, reproduction
from workers.templates import render as render_template
from workers.train.architectures import build

Row = dict[str, Any]

WITH_TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content or '' }}{{ message.tool_calls or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"function": {"name": "weather", "arguments": {"town": "Oslo"}}}
TOOL_CHAT: Row = {
    "messages": [
        {"role": "user", "content": "Is it cold in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "-7"},
        {"role": "assistant", "content": "\nYes."},
    ],
    "tools": [{"type": "function", "function": {"name": "weather"}}],
}


def as_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    pass


def without_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None


def with_tools(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = WITH_TOOLS


def with_trimmed_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """As GPT-NeoX's tokenizer does: spaces are in the tokens but not in their offsets."""
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)


SHAPES: dict[str, tuple[DataKind, list[Row], Callable[[PreTrainedTokenizerBase], None]]] = {
    "plain pairs": (DataKind.PAIRS, data_samples.pairs(4), as_it_is),
    "pairs of messages": (DataKind.PAIRS, [as_conversation(row) for row in data_samples.pairs(4)], as_it_is),
    "plain and conversational pairs": (
        DataKind.PAIRS,
        [*data_samples.pairs(2), *map(as_conversation, data_samples.pairs(2))],
        as_it_is,
    ),
    "pairs without a template": (DataKind.PAIRS, data_samples.pairs(4), without_template),
    "prompt and answer in one token": (DataKind.PAIRS, [{"prompt": "So? ", "completion": "yes"}], without_template),
    "an answer that ends in the end token": (
        DataKind.PAIRS,
        [{"prompt": "So?", "completion": " Yes.<|im_end|>"}],
        without_template,
    ),
    "indented answers": (
        DataKind.PAIRS,
        [{"prompt": "Code?", "completion": "if x:\n     y = 1\n "}],
        with_trimmed_offsets,
    ),
    "an answer of one character in several tokens": (
        DataKind.PAIRS,
        [{"prompt": "Wave!", "completion": "👋🏽"}],
        as_it_is,
    ),
    "a row that is cut": (DataKind.PAIRS, [{"prompt": "Count!", "completion": "one two " * 40}], as_it_is),
    "chat": (DataKind.CHAT, data_samples.chat(4), as_it_is),
    "chat with tools": (DataKind.CHAT, [TOOL_CHAT, *data_samples.chat(1)], with_tools),
    "preference": (DataKind.PREFERENCE, data_samples.preference(4), as_it_is),
    "text": (DataKind.TEXT, [*data_samples.text(4), {"text": "word " * 90}, {"text": "."}, {"text": ""}], as_it_is),
}


def write(
    folder: Path, tokenizer: PreTrainedTokenizerBase, assignment: Assignment, rows: list[Row], tiny: Base
) -> None:
    """Write the script of a trial that was trained and scored on these rows."""
    reproduction.write(
        folder,
        model=tiny.model,
        tokenizer=tokenizer,
        assignment=assignment,
        metrics=Metrics(perplexity=2, bits_per_byte=1, tokens=1, rows=1),
        train_rows=rows,
        scored_rows=rows,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_script_finds_the_judges_tokens_and_targets(shape: str, tiny: Base, tmp_path: Path) -> None:
    kind, rows, change = SHAPES[shape]
    tokenizer = copy.deepcopy(tiny.tokenizer)
    change(tokenizer)
    assignment = assignment_of(kind, tiny)
    write(tmp_path / "reproduce", tokenizer, assignment, rows, tiny)
    encode = encode_of(tmp_path / "reproduce" / "reproduce.py")
    render = renderer(tokenizer, assignment.judge)
    for row in rows:
        judged = [(list(t.ids), targets(t.ids, t.target)) for t in render.answers(row, kind)]
        assert learned(encode(tokenizer, row)) == judged


# Templates that the script's own rendering does not follow, whose rows therefore have their tokens.
OWN_TOKENS = {
    "opens its reasoning in the prompt": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "shows the reasoning of the last turn": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last and m.role == 'assistant' %}"
        "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "reads parts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "leaves an answer open": (
        "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]\n{% endif %}"
    ),
}
KINDS: dict[DataKind, list[Row]] = {
    DataKind.CHAT: [*data_samples.chat(2), {"messages": CONVERSATIONS["multi-turn"]}],
    DataKind.PAIRS: [*data_samples.pairs(1), *map(as_conversation, data_samples.pairs(2))],
    DataKind.PREFERENCE: data_samples.preference(2),
    DataKind.UNPAIRED: [{**row, "label": i == 0} for i, row in enumerate(data_samples.pairs(2))],
}


def exported(
    folder: Path, kind: DataKind, rows: list[Row], tokenizer: PreTrainedTokenizerBase, tiny: Base, *stages: Stage
) -> tuple[Callable[[PreTrainedTokenizerBase, Row], list[dict[str, list[int]]]], list[Row], JudgeSpec]:
    """The script's own function, the rows that are beside it, and the judge."""
    assignment = assignment_of(kind, tiny)
    if stages:
        assignment = assignment.model_copy(
            update={"design": assignment.design.model_copy(update={"stages": tuple(stages)})}
        )
    write(folder, tokenizer, assignment, rows, tiny)
    beside = [json.loads(line) for line in (folder / "validation.jsonl").read_text("utf-8").splitlines()]
    return encode_of(folder / "reproduce.py"), beside, assignment.judge


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_script_has_the_tokens_of_every_published_template(template: str, tiny: Base, tmp_path: Path) -> None:
    tokenizer, chats = speaking(tiny.tokenizer, template), []
    for name, said in CONVERSATIONS.items():
        row: Row = {"messages": said, "tools": TOOLS} if name == "tool calls" else {"messages": said}
        try:
            renderer(tokenizer, assignment_of(DataKind.CHAT, tiny).judge).answers(row, DataKind.CHAT)
        except TrialFailed:
            continue  # such a row is refused when the job is created
        chats.append(row)
    assert chats
    encode, beside, judge = exported(tmp_path / "reproduce", DataKind.CHAT, chats, tokenizer, tiny)
    render = renderer(tokenizer, judge)
    for row, written in zip(chats, beside, strict=True):
        judged = [(list(t.ids), targets(t.ids, t.target)) for t in render.answers(row, DataKind.CHAT)]
        assert learned(encode(tokenizer, written)) == judged


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", OWN_TOKENS)
def test_rows_have_their_tokens_where_a_template_says_too_little(
    template: str, kind: DataKind, tiny: Base, tmp_path: Path
) -> None:
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.chat_template = OWN_TOKENS[template]
    rows = KINDS[kind]
    encode, beside, judge = exported(tmp_path / "reproduce", kind, rows, tokenizer, tiny)
    render = renderer(tokenizer, judge)
    for row, written in zip(rows, beside, strict=True):
        judged = [(list(t.ids), targets(t.ids, t.target)) for t in render.answers(row, kind)]
        if kind is not DataKind.UNPAIRED or row["label"]:
            assert learned(encode(tokenizer, written)) == judged
        assert {name: value for name, value in written.items() if name != exported_tokens.COLUMN} == row
        if kind is DataKind.PREFERENCE and exported_tokens.COLUMN in written:
            other = render.pair(row["prompt"], row["rejected"])
            assert learned(written[exported_tokens.COLUMN]["rejected"]) == [
                (list(other.ids), targets(other.ids, other.target))
            ]
    # Only the last turn of a chat shows its reasoning: where there is one turn, the script sees what the worker does.
    sufficient = template == "shows the reasoning of the last turn" and kind is not DataKind.CHAT
    assert all((exported_tokens.COLUMN in row) is not sufficient for row in beside)


def test_a_template_that_the_script_follows_needs_no_tokens(tiny: Base, tmp_path: Path) -> None:
    for kind, rows in KINDS.items():
        _, beside, _ = exported(tmp_path / kind.value, kind, rows, tiny.tokenizer, tiny)
        assert beside == rows


def test_all_tokens_of_a_chat_are_exported_where_they_are_trained_on(tiny: Base, tmp_path: Path) -> None:
    said = CONVERSATIONS["multi-turn"]
    rows: list[Row] = [{"messages": [said[0], {**said[1], "weight": 0}, *said[2:]]}]
    stage = Stage(algorithm=Clm(), update=Full(), optimiser=Optimiser(learning_rate=1e-3))
    _, (beside,), judge = exported(tmp_path / "reproduce", DataKind.CHAT, rows, tiny.tokenizer, tiny, stage)
    whole = renderer(tiny.tokenizer, judge).full_text(rows[0], DataKind.CHAT)
    assert learned(beside[exported_tokens.COLUMN]["full_text"]) == [
        (list(t.ids), targets(t.ids, t.target)) for t in whole
    ]
    assert 'row["encoded"]["full_text"]' in (tmp_path / "reproduce" / "reproduce.py").read_text("utf-8")


def learned(sequences: list[dict[str, list[int]]]) -> list[tuple[list[int], list[int]]]:
    """The ids and targets of the script's sequences, without those that have no target and so count for nothing."""
    found = [(s["input_ids"], targets(s["input_ids"], [i != -100 for i in s["labels"]])) for s in sequences]
    return [(ids, wanted) for ids, wanted in found if wanted]


def targets(ids: Any, is_target: Any) -> list[int]:
    """The tokens that are predicted; a first token never is."""
    return [token for token, wanted in list(zip(ids, is_target, strict=True))[1:] if wanted]


def assignment_of(kind: DataKind, tiny: Base) -> Assignment:
    stage = Stage(algorithm=Sft(), update=Full(), optimiser=Optimiser(learning_rate=1e-3))
    spec = JudgeSpec(kind=kind, validation="0", test="1", objective="perplexity", window=32, max_tokens=96)
    return Assignment(
        trial_id="trial-abc",
        job_id="ftjob-abc",
        number=1,
        owner="worker",
        fence=1,
        seed=0,
        design=Design(architecture=Architecture(base=tiny.entry.name), stages=(stage,)),
        base=tiny.entry,
        train="2",
        judge=spec,
        checkpoint=None,
        device_seconds=0,
    )


def encode_of(script: Path) -> Callable[[PreTrainedTokenizerBase, Row], list[dict[str, list[int]]]]:
    """The script's own function, without its imports of libraries that take seconds."""
    needed = [
        node
        for node in ast.parse(script.read_text("utf-8")).body
        if getattr(node, "name", None) in ("messages", "encode")
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MAX_LENGTH")
    ]
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module(needed, type_ignores=[]), script.name, "exec"), namespace)
    encode: Callable[[PreTrainedTokenizerBase, Row], list[dict[str, list[int]]]] = namespace["encode"]
    return encode


def test_the_script_edits_a_model_as_the_worker_does() -> None:
    """On a family with biases, norms inside attention, and a kind of attention for each layer."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=3,
    )
    assert len(set(config.layer_types)) == 2
    base = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.normal_(std=0.3)
    by_worker = build(base, Architecture(base="qwen", layers=4, kv_heads=2))
    by_script = copy.deepcopy(base)
    edits = render_template(
        "reproduce_architecture.jinja",
        kept_layers=by_worker.config.kept_layers,
        layer_types=True,
        per_layer=["layer_types"],
        kv_heads=2,
        window=None,
        rope_factor=None,
    )
    exec(textwrap.dedent(edits), {"torch": torch, "model": by_script})
    assert by_script.config.layer_types == by_worker.config.layer_types
    ids = torch.arange(24)[None]
    with torch.no_grad():
        assert largest_difference(by_script(ids).logits, by_worker(ids).logits) < 1e-6
        assert largest_difference(base(ids).logits, by_worker(ids).logits) > 0.1


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("rule", ["linear", "yarn"])
@pytest.mark.parametrize("family", [LlamaConfig, Qwen3Config])
def test_the_script_scales_rope_as_the_worker_does(
    family: type[PretrainedConfig], rule: str, window: int | None
) -> None:
    torch.manual_seed(0)
    config = family(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=8, initializer_range=0.3, max_position_embeddings=16,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config).eval()
    architecture = Architecture(base="small", layers=2, kv_heads=2, window=window, rope_factor=2.5, rope_rule=rule)
    by_worker = build(base, architecture)
    edits = render_template(
        "reproduce_architecture.jinja",
        kept_layers=[0, 2],
        layer_types=bool(getattr(by_worker.config, "layer_types", None)),
        per_layer=["layer_types"] if getattr(by_worker.config, "layer_types", None) else [],
        kv_heads=2,
        window=window,
        rope_factor=2.5,
        rope_rule=rule,
    )
    names: dict[str, Any] = {
        "torch": torch,
        "AutoConfig": AutoConfig,
        "AutoModelForCausalLM": AutoModelForCausalLM,
        "model": copy.deepcopy(base),
    }
    exec(textwrap.dedent(edits), names)
    assert names["model"].config.max_position_embeddings == by_worker.config.max_position_embeddings == 40
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(names["model"](ids).logits, by_worker(ids).logits)
        assert largest_difference(base(ids).logits, by_worker(ids).logits) > 0.1


@pytest.mark.parametrize("family", [LlamaConfig, Qwen3Config])
def test_the_script_sets_the_attention_window_as_the_worker_does(family: type[PretrainedConfig]) -> None:
    """Llama becomes a Mistral; Qwen 3 says it in its own config."""
    torch.manual_seed(0)
    config = family(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=8, initializer_range=0.3,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config).eval()
    by_worker = build(base, Architecture(base="small", layers=2, kv_heads=2, window=5))
    per_layer = ["layer_types"] if getattr(by_worker.config, "layer_types", None) else []
    edits = render_template(
        "reproduce_architecture.jinja",
        kept_layers=[0, 2],
        layer_types=bool(per_layer),
        per_layer=per_layer,
        kv_heads=2,
        window=5,
        rope_factor=None,
    )
    names: dict[str, Any] = {
        "torch": torch,
        "AutoConfig": AutoConfig,
        "AutoModelForCausalLM": AutoModelForCausalLM,
        "model": copy.deepcopy(base),
    }
    exec(textwrap.dedent(edits), names)
    assert type(names["model"]) is type(by_worker)
    ids = torch.arange(24)[None]
    with torch.no_grad():
        assert torch.equal(names["model"](ids).logits, by_worker(ids).logits)
        assert largest_difference(base(ids).logits, by_worker(ids).logits) > 0.1
