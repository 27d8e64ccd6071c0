"""Trying graders, in OpenAI's shape."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, Final

from fastapi import APIRouter, Body

from luthier import graders
from luthier.api_types import GraderErrors, GraderMetadata, GraderRun, GraderValidation
from luthier.errors import GraderFault, UserError
from service.context import Ctx
from service.schemas.requests import RunGrader, ValidateGrader

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["Graders"])

EXAMPLES: Final = {
    "check": {
        "summary": "Does the answer hold the reference?",
        "value": {
            "grader": {"type": "string_check", "operation": "ilike"},
            "item": {"reference": "Paris"},
            "model_sample": "It is Paris.",
        },
    },
    "multi": {
        "summary": "The right number first, and a little for the wording",
        "value": {
            "grader": {
                "type": "multi",
                "graders": {"answer": {"type": "number"}, "wording": {"type": "text_similarity"}},
                "calculate_output": "0.9 * answer + 0.1 * wording",
            },
            "item": {"reference": "It is 12."},
            "model_sample": "3 times 4 is 12",
        },
    },
    "python": {
        "summary": "Code of your own (where LUTHIER_PYTHON_GRADERS allows it)",
        "value": {
            "grader": {
                "type": "python",
                "source": "def grade(sample, item):\n    return float(item['reference'] in sample['output_text'])",
            },
            "item": {"reference": "Paris"},
            "model_sample": "It is Paris.",
        },
    },
    "score_model": {
        "summary": "The opinion of a model (at LUTHIER_GRADER_BASE_URL)",
        "value": {
            "grader": {
                "type": "score_model",
                "model": "gpt-4o-mini",
                "input": [
                    {"role": "user", "content": "How polite is this answer?\n\n{{sample.output_text}}"},
                ],
                "range": [0, 10],
            },
            "item": {},
            "model_sample": "With pleasure: it is Paris.",
        },
    },
}


@router.post("/run", summary="Grade one answer")
def run_grader(ctx: Ctx, body: Annotated[RunGrader, Body(openapi_examples=EXAMPLES)]) -> GraderRun:
    """What goes wrong while grading is reported in `metadata.errors`, beside a reward of 0.0.

    A grader that the service's settings do not allow is refused.
    """
    sample = graders.sample_of(body.model_sample)
    start = perf_counter()
    try:
        graded = graders.assess(body.grader, item=body.item, sample=sample, settings=ctx.settings)
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


@router.post("/validate", summary="Check a grader")
def validate_grader(ctx: Ctx, body: ValidateGrader) -> GraderValidation:
    """A grader that is wrong in itself is refused, with the field and the reason."""
    try:
        graders.check(body.grader, settings=ctx.settings)
    except GraderFault as fault:
        raise _refusal(fault) from fault
    return GraderValidation(grader=body.grader)


def _refusal(fault: GraderFault) -> UserError:
    field = f"grader.{fault.param}"
    return UserError(f"{field}: {_clean(fault.message)}", param=field)


def _errors(faults: tuple[GraderFault, ...]) -> GraderErrors:
    messages: dict[str, str] = {fault.kind: _clean(fault.message) for fault in faults}
    details = tuple(_clean(fault.message) for fault in faults)
    return GraderErrors(
        **dict.fromkeys(messages, True),
        model_grader_server_error_details=messages.get("model_grader_server_error"),
        python_grader_runtime_error_details=messages.get("python_grader_runtime_error"),
        python_grader_server_error_type="sandbox" if "python_grader_server_error" in messages else None,
        details=details,
    )


def _clean(message: str) -> str:
    """A message lists names of the caller's data, where half a surrogate pair may stand."""
    return message.encode(errors="replace").decode()
