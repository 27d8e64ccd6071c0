"""What a job would search and cost, before it is created."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from luthier import dataset
from luthier.api_types import DesignEstimate, DesignSpace, ErrorDetail
from luthier.blobs import Blobs
from luthier.dataset import Profile
from luthier.errors import UserError
from luthier.models.base_model import BaseModelEntry
from luthier.store import files, models, workers
from luthier.store.rows import FileRecord
from luthier.task import DataKind, Family, JudgeSpec
from search.policy.priors import baselines
from search.report import resolution
from search.space import validate
from search.space.options import offer
from search.space.space import Space
from service.context import Context
from service.jobs import base_models, budget, create, estimate, judge
from service.jobs.expected import previewed
from service.jobs.openai_method import fixed_elsewhere, graded, merge
from service.schemas.requests import EstimateDesign, LookAtSpace


def answer(ctx: Context, body: LookAtSpace, now: datetime) -> DesignSpace:
    """Return the space and the expected cost of the job that the request describes.

    Raises UserError where the request names no data. Any other fault of the request is returned as `problem`.
    """
    with ctx.database.read() as c:
        training = None if body.training_file is None else files.get(c, body.training_file)
        entries = models.list_(c)
        live_workers = workers.live(c, now, ctx.settings.lease_seconds)
    if training is None and body.kind is None:
        raise UserError(
            "Name what to train on: `training_file`, the id of an uploaded file, or `kind`, the kind of rows that an "
            "environment generates.",
            param="training_file",
        )
    four_bit = bool(live_workers) and all(worker.device.four_bit for worker in live_workers)
    kind = training.kind if training is not None else body.kind
    assert kind is not None
    rows = body.rows if training is None else estimate.rows_to_train(_profile(training))
    generated = body.rows if body.task.environment is None else body.task.environment.rows
    held_out = dataset.about_held_out(generated if training is None else _profile(training).rows)
    chats, tools = (False, False) if training is None else _traits(ctx.blobs, training.rows, training.kind)
    left_out = base_models.unfit(entries, chats=chats, tools=tools)
    usable = [entry for entry in entries if entry.name not in left_out]
    found: Space | None = None
    pin, problem = body.search.pin, None
    try:
        request = graded(body)
        fixed = fixed_elsewhere(request, kind)
        create.check_models(fixed, entries)
        pin = merge(body.search.pin, fixed)
        base_models.usable(entries, left_out, pin.model or (), pinned=bool(body.search.pin.model))
        length = 0 if training is None else _profile(training).long_rows
        examples = rows if training is None else _profile(training).examples(rows)
        found, _ = create.designs_of(request, fixed, kind, length, usable, examples, four_bit=four_bit)
        admitted = create.admit(ctx, body, now) if body.check else None
    except UserError as error:
        admitted = None
        problem = ErrorDetail(message=error.message, type=error.type, param=error.param, code=error.code)
    rewarded = body.task.rewarded or (body.method is not None and body.method.type == "reinforcement")
    family = found.family if found is not None else _family(kind, usable)
    default = _default(ctx, training, found, now)
    trainings = budget.whole_trainings(body.search)
    estimated = None if problem is not None else _too_few(body, kind, training, held_out)
    few = body.validation_file is None and held_out < dataset.ENOUGH
    further = body.search.confirmations if few else 0
    seconds = None if default is None else trainings * default.seconds
    if seconds is not None and body.search.device_seconds is not None:
        seconds = min(seconds, body.search.device_seconds)
    return DesignSpace(
        kind=kind,
        family=family,
        rows=rows,
        axes=offer(kind, entries, left_out, found, pin, family, rewarded=rewarded, four_bit=four_bit),
        problem=problem,
        trainings=trainings,
        default=default,
        device_seconds=seconds,
        expected=None
        if default is None
        else previewed(body.search, default, rows or 1, len(live_workers), now, further_splits=further),
        workers=len(live_workers),
        warnings=admitted.warnings if admitted is not None else () if estimated is None else (estimated,),
    )


def _too_few(body: LookAtSpace, kind: DataKind, training: FileRecord | None, held_out: int) -> str | None:
    """Return why about so many held-out rows are too few to choose by. A validation file of its own is not counted."""
    if body.validation_file is not None:
        return None
    objective = judge.objective_of(body, kind)
    limits = JudgeSpec.model_fields
    graded = objective == "reward" and (kind in judge.GRADED or training is None)
    rows = min(held_out, limits["max_generations" if graded else "max_rows"].default)
    splits = 1 + body.search.confirmations if held_out < dataset.ENOUGH else 1
    return resolution.warning(objective, rows, rows, splits=splits)


def _profile(training: FileRecord) -> Profile:
    return Profile.model_validate(training.profile)


def _family(kind: DataKind, entries: Sequence[BaseModelEntry]) -> Family:
    available = {entry.facts.family for entry in entries}
    fitting = [one for one in validate.FAMILIES if one in available and validate.recipes(kind, one, rewarded=True)]
    return fitting[0] if fitting else "decoder"


@lru_cache(maxsize=64)
def _traits(blobs: Blobs, rows: str, kind: DataKind) -> tuple[bool, bool]:
    """Return whether the rows of a blob are conversations, and whether they use tools. Blobs never change."""
    with blobs.open(rows) as stream:
        found = dataset.read_rows(stream.read())
    tools = kind is not DataKind.TEXT and any(dataset.tools_field(row) for row in found)
    return create.conversational(found[0]), tools


def _default(ctx: Context, training: FileRecord | None, found: Space | None, now: datetime) -> DesignEstimate | None:
    if training is None or found is None:
        return None
    design = baselines(found)[1]
    with ctx.database.read() as c:
        try:
            return estimate.answer(ctx, c, EstimateDesign(dataset=training.id, design=design), now)
        except UserError:  # the default ignores pins, so that it may not be legal
            return None
