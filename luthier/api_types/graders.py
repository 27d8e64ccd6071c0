"""Results of running and validating graders."""

from __future__ import annotations

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.task import Grader


class GraderErrors(Resource):
    """OpenAI's list of grading errors. Luthier never sets the last two."""

    formula_parse_error: bool = Field(default=False, description="`calculate_output` is not a formula")
    invalid_variable_error: bool = Field(default=False, description="a template names a field that does not exist")
    sample_parse_error: bool = Field(default=False, description="a template reads JSON, and the answer is not JSON")
    other_error: bool = Field(default=False, description="this answer or its reference cannot be graded")
    model_grader_parse_error: bool = Field(default=False, description="the grading model's answer contains no grade")
    model_grader_refusal_error: bool = Field(default=False, description="the grading model refused")
    model_grader_server_error: bool = Field(default=False, description="the grader API did not answer")
    model_grader_server_error_details: str | None = None
    python_grader_runtime_error: bool = Field(default=False, description="the code raised an error or exceeded a limit")
    python_grader_runtime_error_details: str | None = None
    python_grader_server_error: bool = Field(default=False, description="this machine cannot isolate the code")
    python_grader_server_error_type: str | None = None
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    details: tuple[str, ...] = Field(default=(), description="Luthier's addition: each error as text")


class GraderMetadata(Resource):
    name: str
    type: str
    errors: GraderErrors
    execution_time: float = Field(description="seconds")
    scores: dict[str, float] = Field(description="grades by the name of the grader")
    sampled_model_name: str | None = None
    token_usage: int | None = None


class GraderRun(Resource):
    """The grade of one answer. If grading failed it is 0.0, and `metadata.errors` says why."""

    reward: float
    sub_rewards: dict[str, float] = Field(description="the grades that a `multi` grader combined")
    metadata: GraderMetadata
    model_grader_token_usage_per_model: dict[str, int] = Field(default_factory=dict)


class GraderValidation(Resource):
    grader: Grader = Field(description="the grader, with its defaults filled in")
