"""Files as they are usually published raise no warning, so that a warning is worth reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.dataset import load
from tests.unit.good_file import says, user
from tests.unit.good_files import GOOD_FILES
from tests.uploads import Row, load_rows


def _asked(index: int) -> str:
    return f"Where does the old road number {index} lead to, if one follows it north?"


def _said(index: int) -> str:
    return f"It leads to the harbour of town {index}, past two mills."


def _chat(index: int) -> list[Row]:
    return [user(_asked(index)), says(_said(index))]


def _turns(index: int) -> list[Row]:
    return [{"from": "human", "value": _asked(index)}, {"from": "gpt", "value": _said(index)}]


LAYOUTS: dict[str, Callable[[int], Row]] = {
    "Alpaca with a rendered text": lambda n: {
        "instruction": _asked(n),
        "input": "",
        "output": _said(n),
        "text": f"Below is a task. {_asked(n)} ### Response: {_said(n)}",
    },
    "Dolly": lambda n: {
        "instruction": _asked(n),
        "context": f"A map of {n}." if n % 2 else "",
        "response": _said(n),
        "category": ["open_qa", "closed_qa"][n % 2],
    },
    "OpenOrca": lambda n: {
        "id": f"flan.{n}",
        "system_prompt": "You are helpful.",
        "question": _asked(n),
        "response": _said(n),
    },
    "ShareGPT": lambda n: {"id": f"q{n}", "conversations": _turns(n), "source": "forum"},
    "UltraChat": lambda n: {"prompt": _asked(n), "prompt_id": f"{n:032x}", "messages": _chat(n)},
    "No Robots": lambda n: {"prompt": _asked(n), "messages": _chat(n), "category": ["Chat", "Open QA", "Code"][n % 3]},
    "UltraFeedback": lambda n: {
        "prompt": _asked(n),
        "prompt_id": f"{n:032x}",
        "chosen": _chat(n),
        "rejected": [user(_asked(n)), says("No idea.")],
        "messages": _chat(n),
        "score_chosen": 8.5,
        "score_rejected": 4.0,
        "source": "evol_instruct",
    },
    "preferences with their models": lambda n: {
        "prompt": _asked(n),
        "chosen": _said(n),
        "rejected": "No.",
        "chosen_model": "large",
        "rejected_model": "small",
        "chosen-rating": 5,
        "rejected-rating": 5,
    },
    "KTO": lambda n: {"prompt": [user(_asked(n))], "completion": [says(_said(n))], "label": n % 2 == 0},
    "OpenAI with all keys of its answers": lambda n: {
        "messages": [
            {"role": "system", "content": "Be brief."},
            user(_asked(n)),
            says(_said(n), refusal=None, annotations=[], audio=None, function_call=None, tool_calls=None),
        ]
    },
    "agents": lambda n: {
        "messages": [
            user(_asked(n)),
            says("", tool_calls=[{"id": "c1", "type": "function", "function": {"name": "map", "arguments": "{}"}}]),
            {"role": "tool", "tool_call_id": "c1", "name": "map", "content": "north"},
            says(_said(n)),
        ],
        "tools": [{"type": "function", "function": {"name": "map", "parameters": {"type": "object"}}}],
    },
    "a corpus": lambda n: {
        "text": f"{_asked(n)} {_said(n)}",
        "id": f"<urn:uuid:{n}>",
        "url": f"http://example.com/{n}",
        "dump": "CC-MAIN-2020-05",
        "date": "2020-01-19T06:43:41Z",
        "language": ["en", "de"][n % 2],
        "language_score": 0.97,
        "token_count": 12 + n,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_usual_layout_raises_no_warning(layout: str, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, [LAYOUTS[layout](n) for n in range(60)])
    assert (loaded.warnings, len(loaded.rows)) == ((), 60)


def test_only_files_with_columns_that_matter_raise_warnings(tmp_path: Path) -> None:
    path, warned = tmp_path / "upload", set()
    for good in GOOD_FILES:
        path.write_bytes(good.data)
        if load(path, good.name, max_row_bytes=2**22).warnings:
            warned.add(good.case)
    assert warned == {
        "OpenAI's rows for reinforcement",
        "prompts for a grader",
        "a system column beside prompts for a grader",
        "a text with a class",
        "extra columns for graders",
        "labels of many classes",
        "labels of which one is neutral",
        "pairs with a label that is no verdict",
        "Parquet with columns that JSON cannot hold",
    }
