"""Taking in a job: everything is checked, and everything that decides a score is frozen, before anything is queued."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from luthier import dataset, graders
from luthier.dataset import Profile, Row, Splits
from luthier.errors import DatasetError, GraderFault, IllegalDesign, NotFound, UserError
from luthier.models.base_model import BaseModelEntry
from luthier.store import Connection, files, models, workers
from luthier.store.rows import FileRecord, JobRecord, new_id
from luthier.task import DataKind, Grader, JudgeSpec, Objective, Pin, Search, TextSimilarity
from luthier.trial import JobState
from search.space import axes, validate
from search.space.space import Space, space
from service.context import Context
from service.datasets import environments
from service.jobs.openai_method import Fixed, fixed_elsewhere, for_goal, for_objective, graded, ignored, merge
from service.schemas.requests import MAX_SEED, CreateJob

LEAST_TRIALS: Final = 2
LEAST_NEW_TOKENS, MOST_NEW_TOKENS = 16, 128
ENCODER_WINDOW: Final = 128  # each of its scored tokens takes a pass over all of it
GRADED: Final = (DataKind.PAIRS, DataKind.CHAT, DataKind.PROMPTS)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A job ready to be queued, and what its owner should know of how it was set up."""

    job: JobRecord
    filename: str
    generated: FileRecord | None  # to be inserted with the job
    notes: tuple[str, ...]


def admit(ctx: Context, body: CreateJob, now: datetime) -> Admitted:
    """Check a request, split its rows and freeze its judge.

    Raises UserError or one of its children, naming the field at fault.
    """
    _check_budget(body.search, now)
    _check_integrations(ctx, body)
    body = graded(body)
    seed = secrets.randbelow(MAX_SEED) if body.seed is None else body.seed
    generated = _generated(ctx, body, seed)
    with ctx.database.read() as c:
        training = generated or _file(c, _training_file(body), "training_file")
        validation = _validation_file(c, body, training)
        entries = _entries(c)
        crew = workers.live(c, now, ctx.settings.lease_seconds)
    four_bit = bool(crew) and all(worker.device.four_bit for worker in crew)
    fixed = fixed_elsewhere(body, training.kind)
    check_models(fixed, entries)
    splits = _split(ctx, training, validation)
    if training.kind is DataKind.UNPAIRED:
        _check_labels(splits, "training_file" if validation is None else "validation_file")
    if conversational(splits.train[0]):
        entries = _speaking(entries)
    place = _tools_at(ctx, training, validation)
    if place is not None:
        entries = _showing_tools(place, entries, _wanted(body, fixed))
    grader = _grader(body, training.kind)
    length = Profile.model_validate(training.profile).long_rows
    designs, pin = designs_of(body, fixed, training.kind, length, entries, len(splits.train), four_bit=four_bit)
    search = body.search.model_copy(update={"pin": pin})
    judge = _judge(ctx, body, training, grader, splits, designs, tools=place is not None)
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
        train=ctx.keep_bytes(dataset.write_rows(splits.train)),
        judge=judge,
        seed=seed,
        suffix=body.suffix or None,
        metadata=dict(body.metadata or {}),
    )
    notes = splits.notes if body.method is None else (*splits.notes, *ignored(body.method))
    return Admitted(job=record, filename=training.filename, generated=generated, notes=tuple(notes))


def _generated(ctx: Context, body: CreateJob, seed: int) -> FileRecord | None:
    """The rows that the task's environment makes; None where the rows are in a file."""
    spec = body.task.environment
    if spec is None:
        return None
    for field, given in (
        ("training_file", body.training_file),
        ("validation_file", body.validation_file),
        ("task.grader", body.task.grader),
    ):
        if given is not None:
            raise UserError(
                f"{field} and task.environment do not go together: the environment makes the rows and scores the "
                "answers; leave one of them out",
                param=field,
            )
    return environments.generate(ctx, spec, seed)


def _training_file(body: CreateJob) -> str:
    if body.training_file is None:
        raise UserError(
            "training_file is missing: give the id of an uploaded file, or a task.environment that makes the rows",
            param="training_file",
        )
    return body.training_file


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


def check_models(fixed: Sequence[Fixed], entries: Sequence[BaseModelEntry]) -> None:
    known = [entry.name for entry in entries]
    for wanted in fixed:
        if wanted.axis == "model" and wanted.value not in known:
            raise UserError(
                f"{wanted.value!r} is not a registered base model; registered: {', '.join(known)}", param="model"
            )


def conversational(row: Row) -> bool:
    """Whether rows are message lists, which only a chat template turns into text. A dataset is of one form."""
    return "messages" in row or not isinstance(row.get("prompt", ""), str)


def _speaking(entries: Sequence[BaseModelEntry]) -> list[BaseModelEntry]:
    speaking = [entry for entry in entries if entry.facts.chat_template]
    if not speaking:
        raise IllegalDesign(
            "the rows are conversations, which need a base model with a chat template; registered without one: "
            + ", ".join(entry.name for entry in entries),
            param="model",
        )
    return speaking


def _tools_at(ctx: Context, training: FileRecord, validation: FileRecord | None) -> str | None:
    """Where the first tools stand, or calls of them: the file, its row and the field; None where there are none."""
    for record in (training, validation):
        if record is None or record.kind is DataKind.TEXT:
            continue
        for number, row in enumerate(_rows(ctx, record), start=1):
            if field := dataset.tools_field(row):
                return f"{record.filename}: row {number}, field `{field}`"
    return None


def _wanted(body: CreateJob, fixed: Sequence[Fixed]) -> set[str]:
    """The base models that the request names; none where any will do."""
    return {wanted.value for wanted in fixed if wanted.axis == "model"} | set(body.search.pin.model or ())


def _showing_tools(place: str, entries: Sequence[BaseModelEntry], wanted: set[str]) -> list[BaseModelEntry]:
    asked = [entry for entry in entries if not wanted or entry.name in wanted]
    showing = [entry for entry in entries if entry.facts.tools]
    if asked and not any(entry.facts.tools for entry in asked):
        raise IllegalDesign(
            f"{place}: tools, which the chat template of {', '.join(entry.name for entry in asked)} leaves out or "
            "cannot show turn by turn, so that they could not be learned; registered base models that show tools: "
            f"{', '.join(entry.name for entry in showing) or 'none'}",
            param="model",
        )
    return showing


def _split(ctx: Context, training: FileRecord, validation: FileRecord | None) -> Splits:
    given = None if validation is None else _rows(ctx, validation)
    try:
        return dataset.split(_rows(ctx, training), training.kind, validation_rows=given)
    except DatasetError as error:
        raise DatasetError(f"{training.filename}: {error.message}", param="training_file") from error


def _check_labels(splits: Splits, validation: str) -> None:
    """Rows that are judged, and rows that are trained on, must be of both labels to be told apart. `validation` names
    the field that the validation rows came from."""
    judged = JudgeSpec.model_fields["max_rows"].default
    for name, rows in (
        ("training", splits.train),
        ("validation", splits.validation[:judged]),
        ("test", splits.test[:judged]),
    ):
        if len({row["label"] for row in rows}) < 2:
            verdict = "desirable" if rows[0]["label"] else "undesirable"
            raise DatasetError(
                f"the {len(rows)} {name} rows are all {verdict}, so nothing is there to tell them apart from: "
                "add rows of the other label",
                param=validation if name == "validation" else "training_file",
            )


def _rows(ctx: Context, record: FileRecord) -> list[Row]:
    with ctx.blobs.open(record.rows) as stream:
        return dataset.read_rows(stream.read())


def designs_of(
    body: CreateJob,
    fixed: Sequence[Fixed],
    kind: DataKind,
    length: int,
    entries: Sequence[BaseModelEntry],
    rows: int,
    *,
    four_bit: bool,
) -> tuple[Space, Pin]:
    """The space for `rows` rows to train on, of which the long ones have `length` tokens; and the pin that makes the
    same one later: a model registered in the meantime is not in it, and what the workers of now can do is."""
    pin = merge(body.search.pin, fixed)
    try:
        family = validate.family(kind, entries, pin)
        pin = for_objective(for_goal(pin, body.task, kind, family), body.search.objective, kind, family)
        pin = axes.with_devices(pin, entries, four_bit=four_bit)
        for _ in range(2):  # what models are left out for may not limit those that stay
            designs = space(kind, rows, entries, pin, body.constraints, length=length, rewarded=body.task.rewarded)
            pin = pin.model_copy(update={"model": tuple(_names(designs))})
    except UserError as error:
        places = {f"search.pin.{wanted.axis}": wanted.place for wanted in fixed}
        error.param = places.get(error.param or "", error.param)
        raise
    return designs, pin


def _names(designs: Space) -> list[str]:
    return [model.name for model in designs.models]


def _judge(
    ctx: Context,
    body: CreateJob,
    training: FileRecord,
    grader: Grader | None,
    splits: Splits,
    designs: Space,
    *,
    tools: bool,
) -> JudgeSpec:
    if grader is not None:
        _check_grader(ctx, grader, splits, training.kind)
    defaults = JudgeSpec.model_fields
    answers = Profile.model_validate(training.profile).target_lengths.p90 or defaults["max_new_tokens"].default
    return JudgeSpec(
        kind=training.kind,
        validation=ctx.keep_bytes(dataset.write_rows(splits.validation)),
        test=ctx.keep_bytes(dataset.write_rows(splits.test)),
        objective=_objective(body, training.kind),
        grader=grader,
        window=min(_read_up_to("window", designs), ENCODER_WINDOW if designs.family == "encoder" else sys.maxsize),
        family=designs.family,
        max_tokens=_read_up_to("max_tokens", designs),
        max_new_tokens=min(max(answers, LEAST_NEW_TOKENS), MOST_NEW_TOKENS),
        tools=tools,
        environment=body.task.environment,
    )


def _read_up_to(field: str, designs: Space) -> int:
    """What all models of the job can be made to read; not more than the default, but where contexts are stretched."""
    reach = min(model.reach for model in designs.models)
    stretched = any(model.reach > model.context for model in designs.models)
    default: int = JudgeSpec.model_fields[field].default
    return reach if stretched else min(default, reach)


def _grader(body: CreateJob, kind: DataKind) -> Grader | None:
    asked = body.task.grader
    if body.task.environment is not None:
        return None
    if kind is DataKind.PROMPTS and asked is None:
        raise IllegalDesign(
            "prompts rows have no answers to learn from or to compare with: say in task.grader how an answer is graded "
            "(or upload prompts with completions)",
            param="task.grader",
        )
    if kind in GRADED:
        return asked or TextSimilarity()
    if asked is not None:
        raise IllegalDesign(
            f"task.grader compares an answer with a reference, which {kind} rows do not have; leave it out, or use "
            "prompts with completions or chats",
            param="task.grader",
        )
    return None


def _check_integrations(ctx: Context, body: CreateJob) -> None:
    """OpenAI's only one is Weights & Biases. Leaving it out silently would let somebody wait for curves there."""
    if not body.integrations:
        return
    tools = {"MLflow": ctx.settings.mlflow_url, "TensorBoard": ctx.settings.tensorboard_dir}
    told = " and ".join(name for name, place in tools.items() if place is not None) or "neither"
    raise UserError(
        "integrations are not served job by job, and Weights & Biases not at all: leave them out. The service tells "
        f"MLflow (LUTHIER_MLFLOW_URL) and TensorBoard (LUTHIER_TENSORBOARD_DIR) of every trial; here, {told} is set",
        param="integrations",
    )


def _objective(body: CreateJob, kind: DataKind) -> Objective:
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
            preferred = kind in (DataKind.PREFERENCE, DataKind.UNPAIRED)
            return "reward" if preferred or body.task.rewarded else "perplexity"


def _check_grader(ctx: Context, grader: Grader, splits: Splits, kind: DataKind) -> None:
    """The grader must be allowed and sound, and its templates filled by every row that will be graded."""
    graded = JudgeSpec.model_fields["max_generations"].default
    rows = (*splits.validation[:graded], *splits.test[:graded])
    items = [row if kind is DataKind.PROMPTS else {"reference": "", **row} for row in rows]
    try:
        graders.check(grader, items, ctx.settings)
    except GraderFault as error:
        field = f"task.grader.{error.param}"
        raise UserError(f"{field}: {error.message}", param=field) from error
