"""Plain text, and pairs of a prompt and an answer."""

from __future__ import annotations

from luthier.task import DataKind
from tests.unit.good_file import FIRST_PAIR, ROWS, GoodFile, good, pair, says, user

TEXTS = [
    good(
        "text",
        "text",
        DataKind.TEXT,
        lambda i: {"text": f"Story {i}", "source": "x"},
        {"text": "Story 0", "source": "x"},
    ),
    GoodFile(
        case="plain text",
        name="book.TXT",
        data="\n\n".join(f"Chapter {i}. " + "All was well. " * 140 for i in range(ROWS)).encode(),
        kind=DataKind.TEXT,
        format="text",
        first={"text": "Chapter 0. " + "All was well. " * 139 + "All was well."},
    ),
    GoodFile(
        case="Markdown",
        name="book.md",
        data="\n".join(f"# Part {i}\n{'word ' * 300}" for i in range(ROWS)).encode(),
        kind=DataKind.TEXT,
        format="text",
        first={"text": "# Part 0\n" + "word " * 299 + "word"},
    ),
]

PAIRS = [
    good("prompt and completion", "prompt_completion", DataKind.PAIRS, pair, FIRST_PAIR),
    good(
        "extra columns for graders",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"id": i, **pair(i), "label": "positive", "score": None},
        {**FIRST_PAIR, "id": 0, "label": "positive", "score": None},
    ),
    good(
        "prompt and completion as messages",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"prompt": [user(f"Question {i}")], "completion": [says("Answer")]},
        {"prompt": [user("Question 0")], "completion": [says("Answer")]},
    ),
    good(
        "messages as the prompt of a string",
        "prompt_completion",
        DataKind.PAIRS,
        lambda i: {"prompt": [user(f"Question {i}")], "completion": "Answer"},
        {"prompt": [user("Question 0")], "completion": [says("Answer")]},
    ),
    good(
        "alpaca",
        "alpaca",
        DataKind.PAIRS,
        lambda i: {"instruction": "Add.", "input": f"{i}, 1", "output": str(i + 1), "text": "all of it"},
        {"prompt": "Add.\n\n0, 1", "completion": "1", "text": "all of it"},
    ),
    good(
        "alpaca without input",
        "alpaca",
        DataKind.PAIRS,
        lambda i: {"instruction": f"Count to {i}.", "input": "", "output": "1", "system": None, "history": []},
        {"prompt": "Count to 0.", "completion": "1"},
    ),
    good(
        "alpaca with a history in some rows",
        "alpaca",
        DataKind.PAIRS,
        lambda i: {
            "instruction": f"Next {i}",
            "output": "ok",
            **({"history": [["a", "b"]], "system": "c"} if i else {}),
        },
        {"prompt": [user("Next 0")], "completion": [says("ok")]},
    ),
]
