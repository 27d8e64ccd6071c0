"""Render a dataset's rows for one base model, before any trial does: `python -P -m workers.check_rows`.

A line of standard input is an order: the base's folder, a file of rows and their kind. The reply is a line with what
each row becomes (RowChecks). The process renders templates that nobody has checked, so it limits its memory, and its
CPU time for each order. If a limit ends it, the parent starts another one. It needs no torch.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from luthier import child_process
from luthier.dataset.messages import as_messages
from luthier.dataset.row_checks import CheckOrder, RowChecks
from luthier.errors import LuthierError, TrialFailed
from luthier.models import confined
from luthier.task import DataKind
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.data.tool_template import with_tool_template
from workers.train.data.turns import reasoning

LOADING_SECONDS: Final = 60.0  # CPU time to load a tokenizer
_SPELT_ROWS: Final = 20
_FIELDS: Final[dict[DataKind, tuple[str, ...]]] = {  # what a model reads of a row
    DataKind.TEXT: ("text",),
    DataKind.PAIRS: ("prompt", "completion"),
    DataKind.CHAT: ("messages",),
    DataKind.PREFERENCE: ("prompt", "chosen", "rejected"),
    DataKind.PROMPTS: ("prompt",),
    DataKind.UNPAIRED: ("prompt", "completion"),
}


def check(order: CheckOrder) -> RowChecks:
    """Return what each row becomes. Raises LuthierError if the tokenizer cannot be loaded."""
    with confined.limited_step(LOADING_SECONDS):
        render = Renderer(_tokenizer(order.source, order.tools), window=sys.maxsize, max_tokens=sys.maxsize)
    with confined.limited_step(order.seconds):  # all rows together: a template may be slow for some rows only
        return _render_all(render, Path(order.rows), order.kind)


def _render_all(render: Renderer, rows: Path, kind: DataKind) -> RowChecks:
    faults: dict[int, str] = {}
    lengths: list[tuple[int, int]] = []
    spelt: dict[int, str] = {}
    several: dict[int, list[tuple[int, int]]] = {}
    unreasoned = 0
    with rows.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            row = json.loads(line)
            try:
                made = rendered(render, row, kind)
                lengths.append(_lengths(made, kind))
                if kind is DataKind.CHAT and len(made) > 1:
                    several[number] = [_lengths([text], kind) for text in made]
                unreasoned += _leaves_out_reasoning(render, row, kind)
            except TrialFailed as fault:
                faults[number] = fault.message
                lengths.append((0, 0))
            if len(spelt) < _SPELT_ROWS and (token := _spelt(render, row, kind)):
                spelt[number] = token
    return RowChecks(
        faults=faults,
        lengths=lengths,
        spelt=spelt,
        templated=bool(render.tokenizer.chat_template),
        unreasoned=unreasoned,
        several=several,
        timed=render.chat.shows_time,
        stops=bool(_end(render)),
    )


def rendered(render: Renderer, row: Row, kind: DataKind) -> list[Tokens]:
    """Return all that trials make of a row. Raises TrialFailed if the chat template cannot show it."""
    tools = row.get("tools")
    match kind:
        case DataKind.PREFERENCE:
            return [render.pair(row["prompt"], row[side], tools) for side in ("chosen", "rejected")]
        case DataKind.UNPAIRED:
            return [render.pair(row["prompt"], row["completion"], tools)]
        case DataKind.PROMPTS:
            render.prompt(row["prompt"], tools)
            return render.answers(row, kind)
        case DataKind.PAIRS | DataKind.CHAT | DataKind.TEXT:
            return render.answers(row, kind)


def _lengths(texts: list[Tokens], kind: DataKind) -> tuple[int, int]:
    """Return how many tokens the longest text of a row has, and how many are needed to reach a target.

    A preference needs one in both of its texts, a chat in any.
    """
    firsts = [tokens.target.index(True) + 1 for tokens in texts if tokens.targets]
    needed = max if kind is DataKind.PREFERENCE else min
    return max(map(len, texts), default=0), needed(firsts, default=0)


def _leaves_out_reasoning(render: Renderer, row: Row, kind: DataKind) -> bool:
    """Return whether the reasoning of a turn that is trained on is in none of the texts that the row becomes."""
    for field in _FIELDS[kind]:
        said = row[field] if isinstance(row[field], list) and field != "prompt" else []
        trained = [turn for turn in said if turn["role"] == "assistant" and turn.get("weight", 1) != 0]
        thoughts = [thought for turn in trained if (thought := reasoning(turn).strip())]
        shown = _shown(render, row, field) if thoughts else []
        if not all(any(thought in text for text in shown) for thought in thoughts):
            return True
    return False


def _shown(render: Renderer, row: Row, field: str) -> list[str]:
    """Return the texts that a chat, or a prompt and the answer in a field of the row, become."""
    tools = row.get("tools")
    if field == "messages":
        texts = [text.text for text in render.chat.texts(row["messages"], tools)]
    else:
        texts = [render.chat.turn(as_messages(row["prompt"], "user"), row[field], tools).whole]
    return [render.chat.control.show(text) for text in texts]


def _spelt(render: Renderer, row: Row, kind: DataKind) -> str:
    """Return a control token that the row spells in its messages, prompt or answers; empty if there is none."""
    texts = (text for field in _FIELDS[kind] for text in _strings(row[field]))
    return next((token for text in texts if (token := render.chat.control.first(text))), "")


def _strings(value: Any) -> Iterator[str]:
    """Yield every text in a string, a message or a list of messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        yield from chain.from_iterable(map(_strings, value.values() if isinstance(value, dict) else value))


def _end(render: Renderer) -> str:
    return render.chat.end_of_turn if render.tokenizer.chat_template else str(render.tokenizer.eos_token or "")


@lru_cache(maxsize=8)
def _tokenizer(source: str, tools: bool) -> PreTrainedTokenizerBase:
    own: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return with_tool_template(own) or own if tools else own


def main() -> int:
    child_process.limit_memory(confined.MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (confined.OPEN_FILES, confined.OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        order = CheckOrder.model_validate_json(json.loads(line))
        reply: dict[str, Any]
        try:
            reply = {"checks": check(order).model_dump(mode="json")}
        except LuthierError as error:
            reply = {"failed": error.message}
        except BaseException as error:  # panics of the tokenizers library are no Exception
            reply = {"failed": confined.describe(error)}
        print(json.dumps(reply), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
