"""Trying graders, in OpenAI's shape."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, Final

from fastapi import APIRouter, Body

from luthier import graders
from luthier.api_types import GraderErrors, GraderMetadata, GraderRun, GraderValidation
from luthier.errors import GraderFault, UserError
from service.requests import RunGrader, ValidateGrader

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
}


@router.post("/run", summary="Grade one answer")
def run_grader(body: Annotated[RunGrader, Body(openapi_examples=EXAMPLES)]) -> GraderRun:
    """What goes wrong while grading is reported in `metadata.errors`, beside a reward of 0.0."""
    start = perf_counter()
    graded = graders.assess(body.grader, item=body.item, sample=graders.sample_of(body.model_sample))
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
        ),
    )


@router.post("/validate", summary="Check a grader")
def validate_grader(body: ValidateGrader) -> GraderValidation:
    """A grader that is wrong in itself is refused, with the field and the reason."""
    try:
        graders.check(body.grader)
    except GraderFault as fault:
        field = f"grader.{fault.param}"
        raise UserError(f"{field}: {fault.message}", param=field) from fault
    return GraderValidation(grader=body.grader)


def _errors(faults: tuple[GraderFault, ...]) -> GraderErrors:
    kinds = {fault.kind for fault in faults}
    return GraderErrors(
        formula_parse_error="formula_parse_error" in kinds,
        invalid_variable_error="invalid_variable_error" in kinds,
        sample_parse_error="sample_parse_error" in kinds,
        other_error="other_error" in kinds,
        # A message lists names of the caller's data, where half a surrogate pair may stand.
        details=tuple(fault.message.encode(errors="replace").decode() for fault in faults),
    )
