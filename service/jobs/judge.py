"""The judge of a job, which is frozen when the job is created: what every trial is scored on, and how."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from luthier import dataset, graders
from luthier.dataset import Profile, Splits
from luthier.errors import GraderFault, IllegalDesign, UserError
from luthier.models.base_model import LEAST_CONTEXT
from luthier.store.rows import FileRecord
from luthier.task import DataKind, Grader, JudgeSpec, Objective, TextSimilarity
from luthier.values import Frozen
from search.space.space import Space
from service.context import Context
from service.schemas.requests import CreateJob

LEAST_NEW_TOKENS, MOST_NEW_TOKENS = 16, 128
ENCODER_WINDOW: Final = 128  # an encoder scores each token with one pass over the whole window
GRADED: Final = (DataKind.PAIRS, DataKind.CHAT, DataKind.PROMPTS)  # kinds whose rows have a prompt to answer


class Limits(Frozen):
    """How much of a row the judge reads, and how long generated answers may be, in tokens."""

    window: int
    max_tokens: int
    max_new_tokens: int


def limits(designs: Space, profile: Profile) -> Limits:
    """Return what the judge reads of rows with this profile, so that every base model of the space can read it.

    The defaults apply, or the shortest reach of the models if that is less. Where RoPE scaling extends a context, the
    extended reach applies: a design with the longer context would otherwise never be scored on long rows.
    Raises IllegalDesign for a model that can read next to nothing.
    """
    reach = min(model.reach for model in designs.models)
    if reach < LEAST_CONTEXT:
        names = ", ".join(model.name for model in designs.models if model.reach < LEAST_CONTEXT)
        raise IllegalDesign(
            f"A job reads at least {LEAST_CONTEXT} tokens, and {names} has a context of {reach}.", param="model"
        )
    extended = any(model.reach > model.context for model in designs.models)
    defaults = JudgeSpec.model_fields
    window, max_tokens = (
        reach if extended else min(defaults[name].default, reach) for name in ("window", "max_tokens")
    )
    answers = profile.target_lengths.p90 or defaults["max_new_tokens"].default
    return Limits(
        window=min(window, ENCODER_WINDOW) if designs.family == "encoder" else window,
        max_tokens=max_tokens,
        max_new_tokens=min(max(answers, LEAST_NEW_TOKENS), MOST_NEW_TOKENS),
    )


def freeze(
    ctx: Context,
    body: CreateJob,
    training: FileRecord,
    grader: Grader | None,
    splits: Splits,
    designs: Space,
    *,
    tools: bool,
    clock: datetime | None,
) -> JudgeSpec:
    """Store the held-out rows and return the judge. Raises UserError for a grader that cannot grade them."""
    if grader is not None:
        _check_grader(ctx, grader, splits, training.kind)
    return JudgeSpec(
        kind=training.kind,
        validation=ctx.store_bytes(dataset.write_rows(splits.validation)),
        test=ctx.store_bytes(dataset.write_rows(splits.test)),
        objective=objective_of(body, training.kind),
        grader=grader,
        family=designs.family,
        tools=tools,
        clock=clock,
        environment=body.task.environment,
        **dict(limits(designs, Profile.model_validate(training.profile))),
    )


def grader_of(body: CreateJob, kind: DataKind) -> Grader | None:
    """Return the grader of the task, or the default one for rows with answers. Raises IllegalDesign."""
    requested = body.task.grader
    if body.task.environment is not None:
        return None
    if kind is DataKind.PROMPTS and requested is None:
        raise IllegalDesign(
            "Prompts rows have no reference answers. Give task.grader, which scores the generated answers, or upload "
            "prompts with completions. Chats are prompts if their last message is not the assistant's: end each chat "
            "with the answer to learn.",
            param="task.grader",
        )
    if kind in GRADED:
        return requested or TextSimilarity()
    if requested is not None:
        raise IllegalDesign(
            f"task.grader compares an answer with a reference, and {kind} rows have none. Leave it out, or use prompts "
            "with completions or chats.",
            param="task.grader",
        )
    return None


def objective_of(body: CreateJob, kind: DataKind) -> Objective:
    """Return what trials are ranked by. Raises IllegalDesign for a reward that rows of this kind do not have."""
    match body.search.objective:
        case "perplexity":
            return "perplexity"
        case "reward" if kind is DataKind.TEXT:
            raise IllegalDesign(
                "The objective 'reward' needs preference data or a grader, and plain text has no answers to grade. "
                "Use 'perplexity'.",
                param="search.objective",
            )
        case "reward":
            return "reward"
        case "auto":
            preferred = kind in (DataKind.PREFERENCE, DataKind.UNPAIRED)
            return "reward" if preferred or body.task.rewarded else "perplexity"


def _check_grader(ctx: Context, grader: Grader, splits: Splits, kind: DataKind) -> None:
    """Check that the settings allow the grader, and that every row to be graded fills its templates."""
    most = JudgeSpec.model_fields["max_generations"].default
    validation = (splits.validation, *(fold.validation for fold in splits.folds))
    rows = [row for held_out in (*validation, splits.test) for row in held_out[:most]]
    items = [row if kind is DataKind.PROMPTS else {"reference": "", **row} for row in rows]
    try:
        graders.check(grader, items, ctx.settings)
    except GraderFault as error:
        field = f"task.grader.{error.param}"
        raise UserError(f"{field}: {error.message}", param=field) from error
