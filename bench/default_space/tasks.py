"""The tasks of the default space: real rows of each kind, split into training, validation and test rows.

Constants of the search are chosen on the tasks of TUNED and reported on those of REPORTED. The base model is the
1.8M-parameter English chat model of the tests. Rows are downloaded with pip and apt on first use.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Final

from bench.atlas.tasks import ASKS_BACK, CACHE, entry, exchanges
from bench.atlas.tasks import named as of_atlas
from demo import fetch, tour_data
from luthier.models.base_model import BaseModelEntry
from luthier.task import DataKind, Grader, JudgeSpec, Objective, Pin, StringCheck
from search.space.space import Space

Row = dict[str, Any]

TRAIN, VALIDATION, TEST = 160, 80, 120
COUNT: Final = TRAIN + VALIDATION + TEST
DICTIONARY_PACKAGE: Final = "dict-foldoc"
REVIEWS_PACKAGE, REVIEWS_FILE = "vaderSentiment==3.3.2", "movieReviewSnippets_GroundTruth.txt"
# Lengths of texts in characters.
SHORTEST, LONGEST = 60, 300
PARAGRAPH: Final = (200, 400)
INSTRUCTION: Final = 320
CLEAR: Final = 1.5  # mean rating, -4 to 4, from which a review is clearly good or bad


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task as a user would post it: rows and, where answers are graded, a grader."""

    name: str
    kind: DataKind
    source: Callable[[], Sequence[Row]]
    grader: Grader | None = None

    @property
    def objective(self) -> Objective:
        return "reward" if self.grader is not None or self.kind is DataKind.PREFERENCE else "perplexity"

    @property
    def space(self) -> Space:
        """The search space of a job without pins."""
        return Space.for_job(self.kind, TRAIN, [entry()], Pin(), rewarded=self.grader is not None)

    def judge(self, validation: str, test: str) -> JudgeSpec:
        """Return the judge of a job, for the digests of its splits."""
        return JudgeSpec(
            kind=self.kind,
            validation=validation,
            test=test,
            objective=self.objective,
            grader=self.grader,
            max_tokens=512,
            max_new_tokens=16,
            max_rows=max(VALIDATION, TEST),
            max_generations=max(VALIDATION, TEST),
        )


def base() -> BaseModelEntry:
    return entry()


@cache
def rows(task: Task) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the training, validation and test rows of a task, which are in random order."""
    file = CACHE / "default-space" / f"{task.name}.jsonl"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        found = list(task.source())
        random.Random(0).shuffle(found)
        assert len(found) >= COUNT, f"{task.name} has only {len(found)} of {COUNT} rows"
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found[:COUNT]), "utf-8")
    all_rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return all_rows[:TRAIN], all_rows[TRAIN : TRAIN + VALIDATION], all_rows[TRAIN + VALIDATION :]


def _manual() -> Sequence[Row]:
    """Paragraphs of the reference of Python's standard library."""
    blocks = (" ".join(block.split()) for page in tour_data.pages(CACHE, "library") for block in page.split("\n\n"))
    return [{"text": block} for block in blocks if block[:1].isalpha() and PARAGRAPH[0] <= len(block) <= PARAGRAPH[1]]


def _dictionary() -> Sequence[Row]:
    """Entries of the Free On-line Dictionary of Computing."""
    with tarfile.open(fileobj=io.BytesIO(tour_data.debian(DICTIONARY_PACKAGE, CACHE))) as files:
        member = files.extractfile("./usr/share/dictd/foldoc.dict.dz")
        assert member is not None
        text = gzip.decompress(member.read()).decode("utf-8", "replace")
    entries = (" ".join(found.split()) for found in re.split(r"\n(?=\S)", text))
    return [{"text": found} for found in entries if SHORTEST <= len(found) <= LONGEST]


def _instruction() -> Sequence[Row]:
    found = json.loads(fetch.member(CACHE, "alpaca_en_demo.json"))
    asked = ((f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in found)
    return [
        {"prompt": prompt, "completion": answer} for prompt, answer in asked if len(prompt) + len(answer) <= INSTRUCTION
    ]


def _reviews() -> Sequence[Row]:
    """Snippets of movie reviews. The answer is `good` or `bad`."""
    archive = fetch.download(REVIEWS_PACKAGE, CACHE, "--no-binary=vaderSentiment")
    with tarfile.open(archive) as files:
        [outer] = [name for name in files.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz")]
        stream = files.extractfile(outer)
        assert stream is not None
        with tarfile.open(fileobj=io.BytesIO(stream.read())) as inner:
            [name] = [name for name in inner.getnames() if name.endswith(REVIEWS_FILE)]
            lines = inner.extractfile(name)
            assert lines is not None
            text = lines.read().decode("utf-8", "replace")
    rated = [
        (float(rating), said)
        for _, rating, said in csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    ]
    by_side = [
        [said.strip() for rating, said in rated if sign * rating >= CLEAR and SHORTEST <= len(said) <= LONGEST]
        for sign in (1, -1)
    ]
    return [
        {"prompt": f"Is this review good or bad? {said}", "completion": word}
        for pair in zip(*by_side, strict=False)
        for said, word in zip(pair, ("good", "bad"), strict=True)
    ][: 2 * COUNT]


def _replies() -> Sequence[Row]:
    return list(islice(exchanges(), 4 * COUNT))


def _asks_back() -> Sequence[Row]:
    return of_atlas("verifiable").source(0, COUNT)


def _preference() -> Sequence[Row]:
    return of_atlas("preference").source(0, COUNT)


TUNED: Final = (
    Task(name="manual", kind=DataKind.TEXT, source=_manual),
    Task(name="replies", kind=DataKind.PAIRS, source=_replies),
    Task(
        name="reviews",
        kind=DataKind.PAIRS,
        source=_reviews,
        grader=StringCheck(operation="eq", reference="{{item.completion}}"),
    ),
    Task(name="preference", kind=DataKind.PREFERENCE, source=_preference),
)
REPORTED: Final = (
    Task(name="dictionary", kind=DataKind.TEXT, source=_dictionary),
    Task(name="instruction", kind=DataKind.PAIRS, source=_instruction),
    Task(name="asks-back", kind=DataKind.PAIRS, source=_asks_back, grader=ASKS_BACK),
)
TASKS: Final = (*TUNED, *REPORTED)


def named(name: str) -> Task:
    return next(task for task in TASKS if task.name == name)
