"""What the check of a job's rows finds in chats, for one chat template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from luthier.dataset.row_checks import CheckOrder, RowChecks
from luthier.task import DataKind
from service.datasets.row_checks import Checked
from tests.conftest import TINY
from tests.conversations import PUBLISHED, TOOLS, speaking
from workers.cache import Base
from workers.check_rows import check
from workers.train.data.tokenize import Renderer

Rows = list[dict[str, Any]]


def checks(folder: Path, rows: Rows, kind: DataKind = DataKind.CHAT, template: str | None = None) -> RowChecks:
    """Check rows with the tiny tokenizer and a published template, or without a template ("")."""
    source = folder / f"model-{template}"
    shutil.copytree(TINY, source, dirs_exist_ok=True)
    if template is not None:
        text = (PUBLISHED / f"{template}.jinja").read_text("utf-8") if template else ""
        (source / "chat_template.jinja").write_text(text, encoding="utf-8")
    if template == "":
        (source / "chat_template.jinja").unlink()
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    tools = any(row.get("tools") for row in rows)
    return check(CheckOrder(source=str(source), rows=str(file), kind=kind, tools=tools, seconds=60.0))


def chat(rounds: int) -> dict[str, Any]:
    said = [(("user", f"Wall {n}?"), ("assistant", f"No {n}.")) for n in range(rounds)]
    return {"messages": [{"role": role, "content": text} for turns in said for role, text in turns]}


def agent(calls: int) -> dict[str, Any]:
    """A question that is answered after several calls of a tool, each with its reasoning."""
    said: Rows = [{"role": "user", "content": "Paint all walls."}]
    for n in range(calls):
        function = {"name": "paint", "arguments": {"wall": f"wall {n}"}}
        said += [
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": f"It is wall {n}.",
                "tool_calls": [{"type": "function", "function": function}],
            },
            {"role": "tool", "name": "paint", "content": "wet"},
        ]
    return {"messages": [*said, {"role": "assistant", "content": "Done.", "reasoning_content": "All."}], "tools": TOOLS}


def test_a_template_that_shows_turns_anew_makes_a_text_of_each(tmp_path: Path) -> None:
    found = checks(tmp_path, [chat(1), chat(12)], template="qwen3")
    assert not found.faults
    assert [(number, len(texts)) for number, texts in found.several.items()] == [(2, 12)]
    lengths = found.texts(4096)
    assert lengths == sorted(lengths)
    assert lengths[-1] == found.lengths[1][0]
    [note] = Checked(excluded=frozenset(), rows=[], checks={"tiny": [found]}).grown(4096)
    assert f"{sum(lengths):,} tokens" in note
    assert f"{sum(lengths) / lengths[-1]:.1f} times" in note


def test_within_the_limit_only_texts_with_a_target_count(tmp_path: Path) -> None:
    found = checks(tmp_path, [chat(12)], template="qwen3")
    limit = found.texts(4096)[5]
    assert len(found.texts(limit)) in (6, 7)
    assert max(found.texts(limit)) == limit
    assert found.without_target(limit) == []
    assert found.truncated(limit) == [1]


def test_a_template_that_shows_turns_unchanged_makes_one_text(tmp_path: Path) -> None:
    found = checks(tmp_path, [chat(12)])
    assert found.several == {}
    assert Checked(excluded=frozenset(), rows=[], checks={"tiny": [found]}).grown(4096) == []


def test_turns_that_a_later_one_shows_unchanged_share_its_text(tmp_path: Path) -> None:
    """Qwen 3 leaves reasoning out of the turns before the last question, not out of those after it."""
    last = agent(3)
    first = chat(4)["messages"]
    alone = checks(tmp_path, [last], template="qwen3")
    assert alone.several == {}
    both = checks(tmp_path, [{"messages": [*first, *last["messages"]], "tools": TOOLS}], template="qwen3")
    assert len(both.several[1]) == 4 + 1


@pytest.mark.parametrize("rounds", [1, 3])
def test_shared_turns_have_the_targets_that_they_have_alone(rounds: int, tiny: Base) -> None:
    own = speaking(tiny.tokenizer, "qwen3")
    render = Renderer(own, window=4096, max_tokens=4096)
    row = agent(rounds)
    [shared] = render.answers(row, DataKind.CHAT)
    turns = [i for i, turn in enumerate(row["messages"]) if turn["role"] == "assistant"]
    for i in turns:
        alone = render.pair(row["messages"][:i], [row["messages"][i]], TOOLS)
        assert shared.ids[: len(alone)] == alone.ids
        first = alone.target.index(True)
        assert shared.target[first : len(alone)] == alone.target[first:]
    assert sum(shared.target) == sum(
        render.pair(row["messages"][:i], [row["messages"][i]], TOOLS).targets for i in turns
    )


@pytest.mark.parametrize(("template", "left_out"), [("qwen3_5_nothink", 2), ("qwen3_5_think", 0)])
def test_reasoning_that_is_left_out_is_counted_in_every_kind_of_row(
    template: str, left_out: int, tmp_path: Path
) -> None:
    asked = [{"role": "user", "content": "Which colour?"}]
    thinks = [{"role": "assistant", "content": "Red.", "reasoning_content": "It burns."}]
    plain = [{"role": "assistant", "content": "Blue."}]
    rows: dict[DataKind, Rows] = {
        DataKind.CHAT: [{"messages": asked + thinks}] * 2 + [{"messages": asked + plain}],
        DataKind.PAIRS: [{"prompt": asked, "completion": thinks}] * 2 + [{"prompt": asked, "completion": plain}],
        DataKind.PREFERENCE: [
            {"prompt": asked, "chosen": thinks, "rejected": plain},
            {"prompt": asked, "chosen": plain, "rejected": thinks},
            {"prompt": asked, "chosen": plain, "rejected": plain},
        ],
    }
    for kind, given in rows.items():
        found = checks(tmp_path, given, kind, template)
        assert not found.faults
        assert found.unreasoned == left_out


END = "Stop at <|im_end|>."
SPELT: dict[str, tuple[DataKind, dict[str, Any]]] = {
    "prompt": (DataKind.PAIRS, {"prompt": END, "completion": "Yes."}),
    "completion": (DataKind.PAIRS, {"prompt": "Where?", "completion": END}),
    "rejected": (DataKind.PREFERENCE, {"prompt": "Where?", "chosen": "Here.", "rejected": END}),
    "label": (DataKind.UNPAIRED, {"prompt": END, "completion": "Yes.", "label": False}),
    "question": (DataKind.PROMPTS, {"prompt": END, "answer": "Yes."}),
    "message": (DataKind.PROMPTS, {"prompt": [{"role": "user", "content": END}]}),
    "reasoning": (
        DataKind.CHAT,
        {
            "messages": [
                {"role": "user", "content": "Where?"},
                {"role": "assistant", "content": "Here.", "reasoning_content": END},
            ]
        },
    ),
}


@pytest.mark.parametrize("where", SPELT)
def test_control_tokens_are_found_wherever_a_row_spells_them(where: str, tmp_path: Path) -> None:
    kind, row = SPELT[where]
    plain = json.loads(json.dumps(row).replace("<|im_end|>", "the end"))
    found = checks(tmp_path, [plain, row], kind)
    assert found.spelt == {2: "<|im_end|>"}
    assert found.templated


def test_columns_that_are_not_read_may_spell_them(tmp_path: Path) -> None:
    found = checks(tmp_path, [{"prompt": "Where?", "completion": "Here.", "source": END}], DataKind.PAIRS)
    assert found.spelt == {}


def test_without_a_chat_template_they_are_found_as_tokens(tmp_path: Path) -> None:
    found = checks(tmp_path, [{"prompt": "Where?", "completion": END}], DataKind.PAIRS, template="")
    assert (found.spelt, found.templated) == ({1: "<|im_end|>"}, False)
