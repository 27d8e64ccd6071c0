"""Try a grader on one answer, in OpenAI's format."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from luthier import graders
from luthier.api_types import GraderErrors, GraderMetadata, GraderRun
from luthier.errors import GraderFault, UserError
from luthier.settings import Settings
from luthier.task import Grader
from service.schemas.requests import RunGrader


def run(body: RunGrader, settings: Settings) -> GraderRun:
    """Grade one answer. Faults while grading are returned in `metadata.errors`. Raises UserError for a grader that the
    settings do not allow."""
    sample = graders.sample_of(body.model_sample)
    start = perf_counter()
    try:
        graded = graders.assess(body.grader, item=body.item, sample=sample, settings=settings)
    except GraderFault as fault:
        raise _refusal(fault) from fault
    seconds = perf_counter() - start
    return GraderRun(
        reward=graded.reward,
        sub_rewards=graded.sub_rewards,
        metadata=GraderMetadata(
            name=body.grader.name,
            type=body.grader.type,
            errors=_errors(graded.faults),
            execution_time=seconds,
            scores=graded.sub_rewards or {body.grader.name: graded.reward},
            sampled_model_name=", ".join(graded.tokens) or None,
            token_usage=sum(graded.tokens.values()) if graded.tokens else None,
        ),
        model_grader_token_usage_per_model=graded.tokens,
    )


def check(grader: Grader, settings: Settings) -> None:
    """Raise UserError, with the field at fault, for a grader that is wrong by itself."""
    try:
        graders.check(grader, settings=settings)
    except GraderFault as fault:
        raise _refusal(fault) from fault


def _refusal(fault: GraderFault) -> UserError:
    field = f"grader.{fault.param}"
    return UserError(f"{field}: {_clean(fault.message)}", param=field)


def _errors(faults: Sequence[GraderFault]) -> GraderErrors:
    messages: dict[str, str] = {fault.kind: _clean(fault.message) for fault in faults}
    return GraderErrors(
        **dict.fromkeys(messages, True),
        model_grader_server_error_details=messages.get("model_grader_server_error"),
        python_grader_runtime_error_details=messages.get("python_grader_runtime_error"),
        python_grader_server_error_type="sandbox" if "python_grader_server_error" in messages else None,
        details=tuple(_clean(fault.message) for fault in faults),
    )


def _clean(message: str) -> str:
    """Replace lone surrogates, which the user's data may contain and JSON cannot encode."""
    return message.encode(errors="replace").decode()
