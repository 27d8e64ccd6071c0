"""Taking in a job: everything is checked, and everything that decides a score is frozen, before anything is queued."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from luthier import dataset, graders
from luthier.dataset import Profile, Row, Splits
from luthier.errors import DatasetError, GraderFault, IllegalDesign, NotFound, UserError
from luthier.model import BaseModelEntry
from luthier.store import Connection, files, models
from luthier.store.records import FileRecord, JobRecord, new_id
from luthier.task import DataKind, Grader, JudgeSpec, Pin, Search, TextSimilarity
from luthier.trial import JobState
from search import legality
from search.space import Space, space
from service.context import Context
from service.pins import Fixed, fixed_elsewhere, for_goal, merge
from service.requests import MAX_SEED, CreateJob

LEAST_TRIALS: Final = 2
LEAST_NEW_TOKENS, MOST_NEW_TOKENS = 16, 128
ENCODER_WINDOW: Final = 128  # each of its scored tokens takes a pass over all of it
GRADED: Final = (DataKind.PAIRS, DataKind.CHAT)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A job ready to be queued, and what its owner should know of how it was set up."""

    job: JobRecord
    filename: str
    notes: tuple[str, ...]


def admit(here: Context, body: CreateJob, now: datetime) -> Admitted:
    """Check a request, split its rows and freeze its judge.

    Raises UserError or one of its children, naming the field at fault.
    """
    _check_budget(body.search, now)
    fixed = fixed_elsewhere(body)
    with here.database.read() as c:
        training = _file(c, body.training_file, "training_file")
        validation = _validation_file(c, body, training)
        entries = _entries(c)
    _check_models(fixed, entries)
    splits = _split(here, training, validation)
    if _conversational(splits.train):
        entries = _speaking(entries)
    designs, pin = _space(body, fixed, training, entries, len(splits.train))
    search = body.search.model_copy(update={"pin": pin})
    judge = _judge(here, body, training, splits, [entry for entry in entries if entry.name in _names(designs)])
    record = JobRecord(
        id=new_id("ftjob"),
        created_at=now,
        state=JobState.QUEUED,
        model=None if body.model == "auto" else body.model,
        method=None if body.method is None or body.method.type == "auto" else {"type": body.method.type},
        task=body.task,
        search=search,
        constraints=body.constraints,
        training_file=training.id,
        validation_file=None if validation is None else validation.id,
        train=here.keep_bytes(dataset.write_rows(splits.train)),
        judge=judge,
        seed=secrets.randbelow(MAX_SEED) if body.seed is None else body.seed,
        suffix=body.suffix or None,
        metadata=dict(body.metadata or {}),
    )
    return Admitted(job=record, filename=training.filename, notes=(*splits.notes, *_ignored(body)))


def _check_budget(search: Search, now: datetime) -> None:
    if search.trials < LEAST_TRIALS:
        raise UserError(
            f"search.trials must be at least {LEAST_TRIALS}, not {search.trials}: it counts the two baselines, the "
            "untuned model and the plain LoRA default",
            param="search.trials",
        )
    if search.deadline is None:
        return
    if search.deadline.tzinfo is None:
        raise UserError("search.deadline needs a time zone, e.g. 2030-01-31T18:00:00Z", param="search.deadline")
    if search.deadline <= now:
        raise UserError(f"search.deadline {search.deadline.isoformat()} has passed already", param="search.deadline")


def _file(c: Connection, file_id: str, param: str) -> FileRecord:
    try:
        return files.get(c, file_id)
    except NotFound as error:
        raise NotFound(f"{param}: {error.message}; upload it to /v1/files first", param=param) from error


def _validation_file(c: Connection, body: CreateJob, training: FileRecord) -> FileRecord | None:
    if body.validation_file is None:
        return None
    record = _file(c, body.validation_file, "validation_file")
    if record.kind is not training.kind:
        raise UserError(
            f"validation_file holds {record.kind} rows, but training_file holds {training.kind} rows: "
            "both must be of one kind",
            param="validation_file",
        )
    return record


def _entries(c: Connection) -> list[BaseModelEntry]:
    entries = models.list_(c)
    if not entries:
        raise UserError("no base model is registered: add one with `luthier models add NAME FOLDER`", param="model")
    return entries


def _check_models(fixed: Sequence[Fixed], entries: Sequence[BaseModelEntry]) -> None:
    known = [entry.name for entry in entries]
    for wanted in fixed:
        if wanted.axis == "model" and wanted.value not in known:
            raise UserError(
                f"{wanted.value!r} is not a registered base model; registered: {', '.join(known)}", param="model"
            )


def _conversational(rows: Sequence[Row]) -> bool:
    """Whether rows are message lists, which only a chat template turns into text. A dataset is of one form."""
    return "messages" in rows[0] or not isinstance(rows[0].get("prompt", ""), str)


def _speaking(entries: Sequence[BaseModelEntry]) -> list[BaseModelEntry]:
    speaking = [entry for entry in entries if entry.facts.chat_template]
    if not speaking:
        raise IllegalDesign(
            "the rows are conversations, which need a base model with a chat template; registered without one: "
            + ", ".join(entry.name for entry in entries),
            param="model",
        )
    return speaking


def _split(here: Context, training: FileRecord, validation: FileRecord | None) -> Splits:
    given = None if validation is None else _rows(here, validation)
    try:
        return dataset.split(_rows(here, training), training.kind, validation_rows=given)
    except DatasetError as error:
        raise DatasetError(f"{training.filename}: {error.message}", param="training_file") from error


def _rows(here: Context, record: FileRecord) -> list[Row]:
    with here.blobs.open(record.rows) as stream:
        return dataset.read_rows(stream.read())


def _space(
    body: CreateJob, fixed: Sequence[Fixed], training: FileRecord, entries: Sequence[BaseModelEntry], rows: int
) -> tuple[Space, Pin]:
    """The space, and the pin that makes the same one later: a model registered in the meantime is not in it."""
    kind, length = training.kind, Profile.model_validate(training.profile).long_rows
    pin = merge(body.search.pin, fixed)
    try:
        pin = for_goal(pin, body.task.goal, kind, legality.family(kind, entries, pin))
        designs = space(kind, rows, entries, pin, body.constraints, length=length)
    except UserError as error:
        places = {f"search.pin.{wanted.axis}": wanted.place for wanted in fixed}
        error.param = places.get(error.param or "", error.param)
        raise
    return designs, pin.model_copy(update={"model": tuple(_names(designs))})


def _names(designs: Space) -> list[str]:
    return [model.name for model in designs.models]


def _judge(
    here: Context, body: CreateJob, training: FileRecord, splits: Splits, entries: Sequence[BaseModelEntry]
) -> JudgeSpec:
    grader = _grader(body, training.kind)
    if grader is not None:
        _check_grader(grader, splits)
    context, family = min(entry.facts.context for entry in entries), entries[0].facts.family
    defaults = JudgeSpec.model_fields
    answers = Profile.model_validate(training.profile).target_lengths.p90
    return JudgeSpec(
        kind=training.kind,
        validation=here.keep_bytes(dataset.write_rows(splits.validation)),
        test=here.keep_bytes(dataset.write_rows(splits.test)),
        objective=_objective(body, training.kind),
        grader=grader,
        window=min(defaults["window"].default if family == "decoder" else ENCODER_WINDOW, context),
        family=family,
        max_tokens=min(defaults["max_tokens"].default, context),
        max_new_tokens=min(max(answers, LEAST_NEW_TOKENS), MOST_NEW_TOKENS),
    )


def _grader(body: CreateJob, kind: DataKind) -> Grader | None:
    asked = body.task.grader
    if kind in GRADED:
        return asked or TextSimilarity()
    if asked is not None:
        raise IllegalDesign(
            f"task.grader compares an answer with a reference, which {kind} rows do not have; leave it out, or use "
            "prompts with completions or chats",
            param="task.grader",
        )
    return None


def _objective(body: CreateJob, kind: DataKind) -> Literal["perplexity", "reward"]:
    match body.search.objective:
        case "perplexity":
            return "perplexity"
        case "reward" if kind is DataKind.TEXT:
            raise IllegalDesign(
                "the objective 'reward' needs preference data or a grader, and plain text has no answer to grade: "
                "use 'perplexity'",
                param="search.objective",
            )
        case "reward":
            return "reward"
        case "auto":
            return "reward" if kind is DataKind.PREFERENCE or body.task.grader is not None else "perplexity"


def _check_grader(grader: Grader, splits: Splits) -> None:
    """The grader must be sound, and its templates filled by every row that will be graded."""
    graded = JudgeSpec.model_fields["max_generations"].default
    rows = (*splits.validation[:graded], *splits.test[:graded])
    try:
        graders.check(grader, [{"reference": "", **row} for row in rows])
    except GraderFault as error:
        field = f"task.grader.{error.param}"
        raise UserError(f"{field}: {error.message}", param=field) from error


def _ignored(body: CreateJob) -> list[str]:
    if not body.integrations:
        return []
    return ["The integrations (Weights & Biases) are ignored: Luthier keeps curves and metrics itself."]
