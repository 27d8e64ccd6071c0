"""What columns may mean that training does not use: answers, ratings, weights and earlier rounds.

Such a column is a mistake of its name more often than not. So a note says what becomes of it, and what to call it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from luthier.dataset import split_columns
from luthier.dataset.errors import columns
from luthier.dataset.formats import CHATS, HISTORY, Format
from luthier.dataset.labels import COLUMNS as LABELS
from luthier.dataset.labels import missing
from luthier.dataset.rows import Row
from luthier.task import DataKind

_ANSWERS: Final = re.compile(
    r"(answer|output|target|solution|response|completion|reply|replies|summary|summaries|highlight|chosen|rejected|label)"
    r"s?([\W_].*)?|text",
    re.IGNORECASE,
)
_OF_TEXT: Final = (
    *("completion", "response", "output", "answer", "target", "summary", "highlights"),
    *("translation", "code", "sql", "paraphrase", "correction", "reply"),
)
_ASKED: Final = ("question", "query", "input", "inputs", "instruction", "text", "sentence")
_PLACEHOLDER: Final = re.compile(r"\{+\s*(\w+)\s*\}+|%\((\w+)\)s")
_CODE: Final = re.compile(r"\b[fF][rR]?([\"']{3}|[\"']).*?\1|`[^`\n]*\$\{[^`]*`|```.*?```", re.DOTALL)
_REJECTED: Final = re.compile(r"(chosen|rejected|preferred|non_preferred)(_.*)?", re.IGNORECASE)
_RATINGS: Final = re.compile(
    r"(.*_)?(rating|score|reward|feedback|thumbs?|thumbs_up|vote|verdict|quality|desirable|is_good|is_correct|correct)s?",
    re.IGNORECASE,
)
_VERDICTS: Final = re.compile(  # that differ among the rows
    r"(.*_)?(accepted|approved|deleted|flagged|stars|likes|upvotes|downvotes|grade|preference|helpfulness|correctness"
    r"|coherence|complexity|verbosity|honesty|harmlessness|truthfulness|toxicity|ignored?|skip|skipped|excluded?)"
    r"|is_?(bad|wrong|safe|spam|toxic|helpful|useful|harmful|accepted|approved|deleted|rejected)",
    re.IGNORECASE,
)
_TEMPLATE: Final = ("chat_template_kwargs", "enable_thinking", "thinking", "reasoning_effort", "thinking_budget")
_WEIGHTS: Final = ("weight", "weights", "sample_weight", "loss", "loss_scale", "train")


def fault(rows: Sequence[Row], format_: Format, unused: Sequence[str]) -> str | None:
    """Return what is wrong if something else would be learned than the file says; else None.

    So it is with prompts that lack their question, and with plain text without the answers beside it. A text that
    contains its answer, as a whole example does, is complete.
    """
    if format_.kind is not DataKind.TEXT:
        return _incomplete(rows, format_, unused)
    for name in _OF_TEXT:
        for column in (column for column in unused if column.strip().lower() == name):
            given = [row for row in rows if isinstance(row.get(column), str) and row[column].strip()]
            apart = [row for row in given if row[column].strip() not in str(row.get("text"))]
            if 2 * len(apart) >= len(rows):
                return (
                    f"columns `text`, {columns([column])}: the file would be read as plain text, without its answers. "
                    f"To learn {columns([column])} from `text`, call them `completion` and `prompt`; to train on the "
                    f"texts alone, leave {columns([column])} out"
                )
    return None


def _incomplete(rows: Sequence[Row], format_: Format, unused: Sequence[str]) -> str | None:
    """Return what is wrong if the prompts have placeholders for other columns, or are the same whatever is asked."""
    asked = "prompt" if format_.name == "prompt" else format_.asked
    prompts = [row.get(asked) for row in rows] if asked else []
    if not asked or not all(isinstance(prompt, str) for prompt in prompts):
        return None
    named = [_placeholders(str(prompt)) & row.keys() - {asked} for prompt, row in zip(prompts, rows, strict=True)]
    if 2 * sum(map(bool, named)) >= len(rows):
        found = sorted(set().union(*named))
        return f"columns `{asked}`, {columns(found)}: the prompt has {{{found[0]}}} in place of its text. Fill it in"
    if len(rows) > 1 and len(set(map(str, prompts))) == 1:
        for column in (column for column in unused if column in _ASKED):
            apart = {str(row.get(column)) for row in rows if str(row[asked]).strip() not in str(row.get(column))}
            if len(apart) > 1:
                return (
                    f"columns `{asked}`, `{column}`: the prompt is the same in all rows, and does not contain what is "
                    f"in `{column}`. Call `{asked}` `system`, and `{column}` `prompt` or `question`"
                )
    return None


def _placeholders(prompt: str) -> set[str]:
    """Return the names in braces; those in a string of Python or JavaScript that a program fills in do not count."""
    if "{" not in prompt and "%(" not in prompt:
        return set()
    return {name for match in _PLACEHOLDER.findall(_CODE.sub("", prompt)) for name in match if name}


def notes(rows: Sequence[Row], format_: Format, unused: Sequence[str], left_out: Collection[str]) -> Iterator[str]:
    """Yield what becomes of columns that are not used, as sentences. `left_out`: those of them with a text."""
    used = [column for column in unused if any(not missing(row.get(column)) for row in rows)]
    kind = format_.kind
    if kind is DataKind.PROMPTS and (
        answers := [name for name in used if _ANSWERS.fullmatch(name) or name in left_out]
    ):
        yield (
            f"The rows are prompts for reinforcement learning, and only graders see {columns(answers)}. To train on "
            "such a column, call it `completion`."
        )
    if format_.name == "open_messages":
        yield (
            f"The rows are prompts for reinforcement learning, because the last message is {_last_speakers(rows)}. To "
            "train on the assistant's messages, end each chat with one."
        )
    if kind in (DataKind.PAIRS, DataKind.CHAT):
        yield from _verdicts(rows, used)
    if kind is not DataKind.TEXT and (found := [name for name in used if name.lower() in _TEMPLATE]):
        yield f"The chat template is not given what {columns(found)} says: it renders all rows with its own settings."
    if kind is DataKind.TEXT and (found := [name for name in used if name in LABELS]):
        yield f"The rows are plain text, and no training learns {columns(found)}. To learn it, call it `completion`."
    weights = [name for name in used if name.lower() in _WEIGHTS and not split_columns.has_parts(rows, name)]
    if kind not in (DataKind.TEXT, DataKind.PROMPTS) and (found := weights):
        yield f"All rows count alike, whatever {columns(found)} says. A `weight` of 0 belongs to a message of a chat."
    yield from split_columns.notes(rows, used)
    if HISTORY in used and kind is not DataKind.TEXT:
        where = "it stands beside a whole chat" if set(CHATS) & set(format_.required) else "it has no rounds of a chat"
        yield f"The column `{HISTORY}` is not used, because {where}. Rounds are `[[question, answer], …]`."


def _verdicts(rows: Sequence[Row], used: Sequence[str]) -> Iterator[str]:
    """Yield which columns beside answers may say how good these are."""
    if found := [name for name in used if _REJECTED.fullmatch(name)]:
        yield (
            f"{columns(found)} are not used. Preferences have the columns `prompt`, `chosen` and `rejected`, or "
            "`rejected_response` beside a chat."
        )
    if found := [name for name in used if _is_verdict(rows, name)]:
        yield (
            f"All answers are trained on, whatever {columns(found)} says. To learn from good and bad answers "
            "(KTO), give true and false in the column `kto_tag`."
        )


def _is_verdict(rows: Sequence[Row], column: str) -> bool:
    """Return whether a column may say how good the answers are."""
    if _RATINGS.fullmatch(column):
        return column not in LABELS
    return _VERDICTS.fullmatch(column) is not None and len({str(row.get(column)) for row in rows}) > 1


def _last_speakers(rows: Sequence[Row]) -> str:
    """Return whose the last messages of the chats are, such as "`user`" or "`tool` or `user`"."""
    ends: list[Any] = [row["messages"][-1] for row in rows if isinstance(row.get("messages"), list) and row["messages"]]
    return " or ".join(sorted({f"`{end['role']}`" for end in ends if isinstance(end, dict) and "role" in end}))
