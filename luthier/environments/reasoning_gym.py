"""The tasks of the package reasoning-gym: its generators make the rows, its scorers give the reward.

Some scorers return 0.01 for any text, which would reward any answer. So only the full score counts, unless the option
`partial` is set. A scorer that raises gives the reward 0. Rows whose own answer does not get the full score are
dropped, and tasks without answers have no `completion`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, Final, get_type_hints

import reasoning_gym
from reasoning_gym.factory import DATASETS
from reasoning_gym.utils import extract_answer

from luthier.environments.base import Message, Row
from luthier.environments.eval_safety import harmless
from luthier.errors import UserError

REFUSED: Final[Mapping[str, str]] = {
    "game_of_life_halting": "its scorer gives the full reward to any text",
    "composite": "it only mixes other tasks; use one of those",
}
ASK: Final = "\n\nGive the final answer alone, or at the end between <answer> and </answer>."
_ANSWERLESS: Final = frozenset({"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"})
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
_OUR_OWN: Final = ("seed", "size")


@cache
def tasks() -> tuple[str, ...]:
    return tuple(sorted(set(DATASETS) - set(REFUSED)))


def dataset_class(task: str) -> type:
    found: type = DATASETS[task][0]
    return found


def options(task: str) -> dict[str, tuple[Any, Any]]:
    """Return type and default of the options of the task's generator, and of Luthier's option `partial`."""
    config = DATASETS[task][1]
    hints, defaults = get_type_hints(config), config()
    theirs = {
        name: (hints[name], getattr(defaults, name)) for name in config.__dataclass_fields__ if name not in _OUR_OWN
    }
    return {**theirs, "partial": (bool, False)}


class Gym:
    """One task of reasoning-gym.

    Rows have the question as `prompt`, the answer, if any, as `completion`, and the input of the scorer as `entry`.
    """

    def __init__(self, task: str, *, partial: bool, **config: Any) -> None:
        self._task = task
        self._partial = partial
        self._config = config
        self._scorer = self._dataset(0, 1)

    def rows(self, count: int, seed: int) -> list[Row]:
        """Return `count` rows. Raises UserError if too few answers get the full score with these options."""
        found: list[Row] = []
        for entry in self._entries(count, seed):
            row: dict[str, Any] = {"prompt": entry["question"] + ASK}
            if self._task not in _ANSWERLESS:
                row["completion"] = str(entry["answer"])
            row["entry"] = _written(entry)
            if self._task in _ANSWERLESS or self._paid(row):
                found.append(row)
            if len(found) == count:
                return found
        raise UserError(
            f"task.environment.options: only {len(found)} of {4 * count} rows of {self._task} have an answer that gets "
            "the full score of its own scorer. Change the options.",
            param="task.environment.options",
        )

    def begin(self, row: Row) -> _Question:
        return _Question(self, row)

    def score(self, answer: str, entry: Mapping[str, Any]) -> float:
        """Return the score of an answer without tags, by the rules of this module."""
        if not harmless(self._task, answer):
            return 0.0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about answers that look like invalid Python
                score = float(self._scorer.score_answer(answer, entry))
        except Exception:  # scorers raise anything at answers that they cannot read
            return 0.0
        return score if self._partial else float(score >= 1.0)

    def _paid(self, row: Row) -> bool:
        return bool(row["completion"].strip()) and self.score(row["completion"], _read(row["entry"])) == 1.0

    def _entries(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        # In reasoning-gym, seeds that differ by 1 share all rows but one.
        dataset = self._dataset(Random(f"{self._task} {seed}").getrandbits(31), 4 * count)
        for index in range(4 * count):
            yield dataset[index]

    def _dataset(self, seed: int, size: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it leaves files open
            return reasoning_gym.create_dataset(self._task, seed=seed, size=size, **self._config)


class _Question:
    """An episode of a single answer."""

    def __init__(self, gym: Gym, row: Row) -> None:
        self._gym = gym
        self._entry = _read(row["entry"])
        self._answer = ""

    def respond(self, answer: str) -> Sequence[Message]:
        self._answer = answer
        return ()

    def reward(self) -> float:
        return max(self._gym.score(answer, self._entry) for answer in readings(self._answer, self._entry["answer"]))


def readings(text: str, reference: str | None) -> list[str]:
    """Return the possible answers in a text: the text between the tags.

    Without tags: the whole text, its last line, and its last number if the reference is a number.
    """
    tagged = extract_answer(text)
    if tagged is not None:
        return [tagged]
    text = text.strip()
    found = [text, text.rsplit("\n", 1)[-1].strip()]
    if reference is not None and _NUMBER.fullmatch(reference):
        found += _NUMBER.findall(text)[-1:]
    return found


def _written(value: Any) -> Any:
    """Return JSON that `_read` turns into the same value: JSON has no tuples, and no numbers as keys."""
    match value:
        case tuple():
            return {"tuple": [_written(item) for item in value]}
        case list():
            return [_written(item) for item in value]
        case dict() if all(isinstance(key, str) for key in value) and not value.keys() & {"tuple", "pairs"}:
            return {str(key): _written(item) for key, item in value.items()}
        case dict():
            return {"pairs": [[_written(key), _written(item)] for key, item in value.items()]}
        case bool() | None:
            return value
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case _:
            return str(value)


def _read(value: Any) -> Any:
    match value:
        case {"tuple": list(items), **rest} if not rest:
            return tuple(map(_read, items))
        case {"pairs": list(pairs), **rest} if not rest:
            return {_read(key): _read(item) for key, item in pairs}
        case dict():
            return {key: _read(item) for key, item in value.items()}
        case list():
            return [_read(item) for item in value]
        case _:
            return value
