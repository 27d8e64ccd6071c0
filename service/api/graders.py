"""Try and check graders, in OpenAI's format."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body

from luthier.api_types import GraderRun, GraderValidation
from service.context import Ctx
from service.jobs import grading
from service.schemas.requests import RunGrader, ValidateGrader

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["Graders"])

EXAMPLES: Final = {
    "check": {
        "summary": "Does the answer contain the reference?",
        "value": {
            "grader": {"type": "string_check", "operation": "ilike"},
            "item": {"reference": "Paris"},
            "model_sample": "It is Paris.",
        },
    },
    "multi": {
        "summary": "Mostly the right number, and a little the wording",
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
        "summary": "A score by a model (at LUTHIER_GRADER_BASE_URL)",
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
    """Errors in grading are reported in `metadata.errors`, and the reward is then 0.0.

    A grader that the service's settings do not allow is refused.
    """
    return grading.run(body, ctx.settings)


@router.post("/validate", summary="Check a grader")
def validate_grader(ctx: Ctx, body: ValidateGrader) -> GraderValidation:
    """Refuses an invalid grader, with the field and the reason."""
    grading.check(body.grader, ctx.settings)
    return GraderValidation(grader=body.grader)
