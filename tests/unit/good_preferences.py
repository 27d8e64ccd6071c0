"""Preferences, and answers with a label."""

from __future__ import annotations

from luthier.task import DataKind
from tests.unit.good_file import FIRST_PAIR, FIRST_PREFERENCE, TOOL, GoodFile, Row, csv_file, good, pair, says, user

PREFERENCES = [
    good(
        "preferences",
        "preference",
        DataKind.PREFERENCE,
        lambda i: {"prompt": f"Question {i}", "chosen": "good", "rejected": "bad"},
        {"prompt": "Question 0", "chosen": "good", "rejected": "bad"},
    ),
    good(
        "preferences as messages",
        "preference",
        DataKind.PREFERENCE,
        lambda i: {"prompt": f"Question {i}", "chosen": [says("good")], "rejected": "bad"},
        FIRST_PREFERENCE,
    ),
    good(
        "preferences with the prompt in both answers",
        "implicit_preference",
        DataKind.PREFERENCE,
        lambda i: {
            "chosen": [user(f"Question {i}"), says("good")],
            "rejected": [user(f"Question {i}"), says("bad")],
        },
        FIRST_PREFERENCE,
    ),
    good(
        "LLaMA-Factory's preferences",
        "sharegpt_preference",
        DataKind.PREFERENCE,
        lambda i: {
            "conversations": [{"from": "human", "value": f"Question {i}"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        FIRST_PREFERENCE,
    ),
    good(
        "OpenAI's preferences",
        "openai_preference",
        DataKind.PREFERENCE,
        lambda i: {
            "input": {"messages": [user(f"Question {i}")], "tools": [TOOL], "parallel_tool_calls": True},
            "preferred_output": [says("good")],
            "non_preferred_output": [says("bad")],
        },
        {**FIRST_PREFERENCE, "tools": [TOOL]},
    ),
]


def _judged(index: int) -> Row:
    return {**pair(index), "label": index % 3 == 0}


_FIRST_JUDGED = {"prompt": "What is 0 + 1?", "completion": "1", "label": True}
_FIRST_JUDGED_CHAT = {"prompt": [user("How 0?")], "completion": [says("So.")], "label": False}

UNPAIRED = [
    good("TRL's unpaired labels", "unpaired", DataKind.UNPAIRED, _judged, _FIRST_JUDGED),
    GoodFile(
        case="unpaired labels in CSV",
        name="train.csv",
        data=csv_file(_judged),
        kind=DataKind.UNPAIRED,
        format="unpaired",
        first=_FIRST_JUDGED,
    ),
    good(
        "unpaired labels on messages",
        "unpaired",
        DataKind.UNPAIRED,
        lambda i: {"prompt": [user(f"How {i}?")], "completion": "So.", "label": bool(i % 2), "source": "log"},
        {**_FIRST_JUDGED_CHAT, "source": "log"},
    ),
    good(
        "LLaMA-Factory's unpaired labels on the last message",
        "unpaired_messages",
        DataKind.UNPAIRED,
        lambda i: {"messages": [user("A?"), says("B."), user(f"How {i}?"), says("So.")], "kto_tag": bool(i % 2)},
        {"prompt": [user("A?"), says("B."), user("How 0?")], "completion": [says("So.")], "label": False},
    ),
    good(
        "messages with a label",
        "unpaired_messages",
        DataKind.UNPAIRED,
        lambda i: {"messages": [user(f"How {i}?"), says("So.")], "label": bool(i % 2)},
        _FIRST_JUDGED_CHAT,
    ),
    good(
        "ShareGPT with a tag",
        "unpaired_sharegpt",
        DataKind.UNPAIRED,
        lambda i: {
            "conversations": [{"from": "human", "value": f"How {i}?"}, {"from": "gpt", "value": "So."}],
            "kto_tag": bool(i % 2),
        },
        _FIRST_JUDGED_CHAT,
    ),
    good(
        "alpaca with a tag",
        "unpaired_alpaca",
        DataKind.UNPAIRED,
        lambda i: {"instruction": f"How {i}?", "input": "", "output": "So.", "kto_tag": bool(i % 2)},
        {"prompt": "How 0?", "completion": "So.", "label": False},
    ),
    good(
        "labels of many classes",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**pair(i), "label": i},
        {**FIRST_PAIR, "label": 0},
    ),
    good(
        "labels of which one is neutral",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**pair(i), "label": i % 3 - 1},
        {**FIRST_PAIR, "label": -1},
    ),
    good(
        "a label on each question's answer",
        "unpaired_question_answer",
        DataKind.UNPAIRED,
        lambda i: {"question": f"Why {i}?", "answer": "So.", "label": ("thumbs down", "Thumbs-Up")[i % 2]},
        {"prompt": "Why 0?", "completion": "So.", "answer": "So.", "label": False},
    ),
    good(
        "pairs with a label that is no verdict",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {**pair(i), "label": "arithmetic"},
        {**FIRST_PAIR, "label": "arithmetic"},
    ),
]
