"""Graders tried on one answer."""

from __future__ import annotations

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.task import Grader


class GraderErrors(Resource):
    """OpenAI's list of what can go wrong while grading; the last two never do here."""

    formula_parse_error: bool = Field(default=False, description="`calculate_output` is not a formula")
    invalid_variable_error: bool = Field(default=False, description="a template names what is not there")
    sample_parse_error: bool = Field(default=False, description="the answer is not the JSON that a template reads")
    other_error: bool = Field(default=False, description="this answer, or its reference, cannot be graded")
    model_grader_parse_error: bool = Field(default=False, description="the grading model's answer holds no grade")
    model_grader_refusal_error: bool = Field(default=False, description="the grading model refused")
    model_grader_server_error: bool = Field(default=False, description="the grading model's endpoint gave no answer")
    model_grader_server_error_details: str | None = None
    python_grader_runtime_error: bool = Field(default=False, description="the code raised, or took too much")
    python_grader_runtime_error_details: str | None = None
    python_grader_server_error: bool = Field(default=False, description="the code cannot be isolated here")
    python_grader_server_error_type: str | None = None
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    details: tuple[str, ...] = Field(default=(), description="Luthier's own: each error in words")


class GraderMetadata(Resource):
    name: str
    type: str
    errors: GraderErrors
    execution_time: float = Field(description="seconds")
    scores: dict[str, float] = Field(description="every grade by the name of its grader")
    sampled_model_name: str | None = None
    token_usage: int | None = None


class GraderRun(Resource):
    """One answer, graded. A grade that could not be given is 0.0, and `metadata.errors` says why."""

    reward: float
    sub_rewards: dict[str, float] = Field(description="the grades that a `multi` grader combined")
    metadata: GraderMetadata
    model_grader_token_usage_per_model: dict[str, int] = Field(default_factory=dict)


class GraderValidation(Resource):
    grader: Grader = Field(description="the grader, with its defaults filled in")
