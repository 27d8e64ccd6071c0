"""Create a job: check the request, split its rows and freeze its judge before anything is queued."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from luthier import dataset
from luthier.dataset import Fold, Profile, Row, Splits
from luthier.errors import DatasetError, IllegalDesign, NotFound, UserError, unknown_base_model
from luthier.models.base_model import BaseModelEntry
from luthier.store import Connection, files, jobs, models, workers
from luthier.store.rows import FileRecord, JobRecord, new_id
from luthier.task import DataKind, JudgeSpec, Pin, Resplit, Search
from luthier.trial import JobState
from search.policy.choose_sampler import check_sampler
from search.report import resolution
from search.space import axes, validate
from search.space.learning_rate import default_learning_rate
from search.space.space import Space
from service.context import Context
from service.datasets import environments, row_checks
from service.datasets.row_checks import Checked
from service.jobs import base_models, events, judge
from service.jobs.openai_method import Fixed, fixed_elsewhere, for_goal, for_objective, graded, ignored, merge
from service.schemas.requests import MAX_SEED, CreateJob


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A job that is ready to be queued, with notes and warnings for its event log."""

    job: JobRecord
    filename: str
    generated: FileRecord | None  # to be inserted with the job
    notes: tuple[str, ...]
    designs: Space
    warnings: tuple[str, ...] = ()


def admit(ctx: Context, body: CreateJob, now: datetime) -> Admitted:
    """Check a request and return the job that it describes; nothing is queued yet.

    Raises UserError or one of its subclasses, with the field at fault as `param`.
    """
    _check_budget(body.search, now)
    check_sampler(body.search.sampler, ctx.settings.samplers)
    _check_integrations(ctx, body)
    body = graded(body)
    seed = secrets.randbelow(MAX_SEED) if body.seed is None else body.seed
    generated = _generated(ctx, body, seed)
    with ctx.database.read() as c:
        training = generated or _training_file(c, body)
        validation = _validation_file(c, body, training)
        entries = models.list_(c)
        live_workers = workers.live(c, now, ctx.settings.lease_seconds)
    if not entries:
        raise UserError("No base model is registered. Add one with `luthier models add NAME FOLDER`.", param="model")
    four_bit = bool(live_workers) and all(worker.device.four_bit for worker in live_workers)
    fixed = fixed_elsewhere(body, training.kind)
    check_models(fixed, entries)
    requested = {value.value for value in fixed if value.axis == "model"} | set(body.search.pin.model or ())
    pinned = bool(body.search.pin.model)
    unfit = base_models.unfit(entries, chats=conversational(_rows(ctx, training)[0]))
    entries = base_models.usable(entries, unfit, requested, pinned=pinned)
    place = _tools_at(ctx, training, validation)
    if place is not None:
        entries = _with_tools(place, entries, requested)
    checked = row_checks.check(
        [(record, _rows(ctx, record)) for record in (training, validation) if record is not None],
        [entry for entry in entries if not requested or entry.name in requested],
        on_bad_rows=body.on_bad_rows,
        tools=place is not None,
    )
    entries = base_models.usable(entries, checked.excluded, requested, pinned=pinned)
    splits = _split(checked, training, validation, body.search.confirmations)
    if training.kind is DataKind.UNPAIRED:
        _check_labels(splits, "training_file" if validation is None else "validation_file")
    grader = judge.grader_of(body, training.kind)
    profile = Profile.model_validate(training.profile)
    examples = profile.examples(len(splits.train))
    designs, pin = designs_of(body, fixed, training.kind, profile.long_rows, entries, examples, four_bit=four_bit)
    search = body.search.model_copy(update={"pin": pin})
    clock = now if checked.timed else None
    frozen = judge.freeze(ctx, body, training, grader, splits, designs, tools=place is not None, clock=clock)
    lengths = checked.within(frozen.max_tokens, splits)
    folds = [fold for fold in splits.folds if checked.scorable(frozen.max_tokens, fold.validation)]
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
        train=ctx.store_bytes(dataset.write_rows(splits.train)),
        judge=frozen,
        seed=seed,
        suffix=body.suffix or None,
        metadata=dict(body.metadata or {}),
        truncation=checked.truncation(frozen.max_tokens),
        resplits=tuple(_stored(ctx, fold) for fold in folds),
    )
    unused = () if body.method is None else ignored(body.method)
    notes = (
        *profile.warnings,
        *base_models.note(unfit),
        *checked.notes,
        *splits.notes,
        *lengths,
        *unused,
        *rate_notes(designs),
        *([further_splits(len(splits.validation), len(folds))] if folds else ()),
    )
    validated, tested = (checked.scored(frozen.max_tokens, rows) for rows in (splits.validation, splits.test))
    warnings = (*checked.warnings(frozen.max_tokens), *too_few(frozen, validated, tested, 1 + len(folds)))
    return Admitted(
        job=record, filename=training.filename, generated=generated, notes=notes, designs=designs, warnings=warnings
    )


def queue(c: Connection, admitted: Admitted, now: datetime, notes: Sequence[str] = ()) -> None:
    """Insert an admitted job with its generated rows, and log the event. `notes` go before the job's own."""
    if admitted.generated is not None:
        files.insert(c, admitted.generated)
    jobs.insert(c, admitted.job)
    events.created(c, admitted.job, admitted.filename, (*notes, *admitted.notes), admitted.warnings, now)


def too_few(judge: JudgeSpec, validation: int, test: int, splits: int) -> tuple[str, ...]:
    """Return a warning if so many validation and test rows cannot tell what tuning usually brings; else nothing.

    `splits`: on how many splits of the rows finalists are compared.
    """
    rows = (resolution.scored_rows(judge, held_out) for held_out in (validation, test))
    found = resolution.warning(judge.objective, *rows, splits=splits)
    return () if found is None else (found,)


def further_splits(validation: int, further: int) -> str:
    """Return that so few validation rows are made up for by further splits, and at which price."""
    return (
        f"There are fewer than {dataset.ENOUGH} validation rows ({validation}), so the finalists and the default are "
        f"compared on {1 + further} splits of the rows (cross-validation): each repeat is trained on another split, "
        "and costs a training."
    )


def rate_notes(designs: Space) -> Iterator[str]:
    """Yield, for each pinned learning rate, its multiplier of the default of each weight update."""
    model, algorithm = designs.models[0], designs.recipes[0].split("+")[0]
    for rate in designs.rates:
        updates: dict[str, list[str]] = {}
        for name in model.updates:
            times = rate / default_learning_rate(algorithm, name, model.hidden_size)
            updates.setdefault(f"{times:.2g}", []).append(name)
        each = "; ".join(f"×{times} of the default of {', '.join(names)}" for times, names in updates.items())
        yield f"Learning rate {rate:g} with {algorithm} on {model.name}: {each}."


def _generated(ctx: Context, body: CreateJob, seed: int) -> FileRecord | None:
    """Return the rows that the task's environment generates; None where the rows are in a file."""
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
                f"{field} and task.environment exclude each other: the environment generates the rows and scores the "
                "answers. Leave one of them out.",
                param=field,
            )
    return environments.generate(ctx, spec, seed)


def _training_file(c: Connection, body: CreateJob) -> FileRecord:
    if body.training_file is None:
        raise UserError(
            "training_file is missing. Give the id of an uploaded file, or a task.environment that generates the rows.",
            param="training_file",
        )
    return _file(c, body.training_file, "training_file")


def _check_budget(search: Search, now: datetime) -> None:
    if search.deadline is None:
        return
    if search.deadline.tzinfo is None:
        raise UserError("search.deadline needs a time zone, e.g. 2030-01-31T18:00:00Z", param="search.deadline")
    if search.deadline <= now:
        raise UserError(f"search.deadline {search.deadline.isoformat()} has already passed", param="search.deadline")


def _file(c: Connection, file_id: str, param: str) -> FileRecord:
    try:
        return files.get(c, file_id)
    except NotFound as error:
        raise NotFound(f"{param}: {error.message} Upload it to /v1/files first.", param=param) from error


def _validation_file(c: Connection, body: CreateJob, training: FileRecord) -> FileRecord | None:
    if body.validation_file is None:
        return None
    record = _file(c, body.validation_file, "validation_file")
    if record.kind is not training.kind:
        raise UserError(
            f"validation_file holds {record.kind} rows, but training_file holds {training.kind} rows. "
            "Both must be of the same kind.",
            param="validation_file",
        )
    return record


def check_models(fixed: Sequence[Fixed], entries: Sequence[BaseModelEntry]) -> None:
    """Raise UserError for a base model in the request that is not registered."""
    known = [entry.name for entry in entries]
    for value in fixed:
        if value.axis == "model" and value.value not in known:
            raise unknown_base_model(value.value, known, error=UserError)


def conversational(row: Row) -> bool:
    """Return whether the row is a list of messages, which needs a chat template. All rows of a dataset are alike."""
    return "messages" in row or not isinstance(row.get("prompt", ""), str)


def _tools_at(ctx: Context, training: FileRecord, validation: FileRecord | None) -> str | None:
    """Return the file, row and field of the first tool definition or call; None where there is none."""
    for record in (training, validation):
        if record is None or record.kind is DataKind.TEXT:
            continue
        for number, row in enumerate(_rows(ctx, record), start=1):
            if field := dataset.tools_field(row):
                return f"{record.filename}: row {number}, field `{field}`"
    return None


def _with_tools(place: str, entries: Sequence[BaseModelEntry], requested: set[str]) -> list[BaseModelEntry]:
    """`requested`: the base models that the request names; empty where any will do."""
    candidates = [entry for entry in entries if not requested or entry.name in requested]
    found = [entry for entry in entries if entry.facts.tools]
    if candidates and not any(entry.facts.tools for entry in candidates):
        raise IllegalDesign(
            f"{place}: the rows use tools, and the chat template of {', '.join(entry.name for entry in candidates)} "
            "does not render them, or not turn by turn. Registered base models that render tools: "
            f"{', '.join(entry.name for entry in found) or 'none'}.",
            param="model",
        )
    return found


def _split(checked: Checked, training: FileRecord, validation: FileRecord | None, folds: int) -> Splits:
    given = None if validation is None else checked.rows[1]
    try:
        return dataset.split(checked.rows[0], training.kind, validation_rows=given, folds=folds)
    except DatasetError as error:
        raise DatasetError(f"{training.filename}: {error.message}", param="training_file") from error


def _stored(ctx: Context, fold: Fold) -> Resplit:
    train, validation = (ctx.store_bytes(dataset.write_rows(rows)) for rows in (fold.train, fold.validation))
    return Resplit(train=train, validation=validation)


def _check_labels(splits: Splits, validation: str) -> None:
    """Raise DatasetError unless each split has rows of both labels (KTO). `validation`: the field that the validation
    rows came from."""
    judged = JudgeSpec.model_fields["max_rows"].default
    for name, rows in (
        ("training", splits.train),
        ("validation", splits.validation[:judged]),
        ("test", splits.test[:judged]),
    ):
        if len({row["label"] for row in rows}) < 2:
            label = "desirable" if rows[0]["label"] else "undesirable"
            raise DatasetError(
                f"The {len(rows)} {name} rows are all {label}. Add rows of the other label.",
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
    """Return the space for `rows` training rows, whose long ones have `length` tokens, and the pin that makes it again.

    The pin names the base models and the updates that the live workers can run, so that models and workers which join
    later do not change the search. Raises UserError, with the field of the request as `param`.
    """
    pin = merge(body.search.pin, fixed)
    try:
        family = validate.family(kind, entries, pin)
        taught = any(validate.teachers_of(entry, entries) for entry in entries)
        pin = for_objective(for_goal(pin, body.task, kind, family, taught=taught), body.search.objective, kind, family)
        pin = axes.with_devices(pin, entries, four_bit=four_bit)
        for _ in range(2):  # the limits of models that drop out must not apply to those that stay
            designs = Space.for_job(
                kind, rows, entries, pin, body.constraints, length=length, rewarded=body.task.rewarded
            )
            teachers = {axes.TEACHER_PINS[algorithm]: names for algorithm, names in designs.teachers.items()}
            pin = pin.model_copy(update={"model": tuple(model.name for model in designs.models), **teachers})
    except UserError as error:
        places = {f"search.pin.{value.axis}": value.place for value in fixed}
        error.param = places.get(error.param or "", error.param)
        raise
    return designs, pin


def _check_integrations(ctx: Context, body: CreateJob) -> None:
    """Refuse integrations. OpenAI's only one is Weights & Biases; if ignored, users would wait for curves there."""
    if not body.integrations:
        return
    tools = {"MLflow": ctx.settings.mlflow_url, "TensorBoard": ctx.settings.tensorboard_dir}
    enabled = " and ".join(name for name, place in tools.items() if place is not None) or "neither"
    raise UserError(
        "Integrations per job are not supported, and Weights & Biases is not supported at all. Leave them out. The "
        "service logs every trial to MLflow (LUTHIER_MLFLOW_URL) and TensorBoard (LUTHIER_TENSORBOARD_DIR). Enabled "
        f"now: {enabled}.",
        param="integrations",
    )
