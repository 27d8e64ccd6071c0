"""Graders are tried in OpenAI's shapes: strictly by its types, and in the hands of its unmodified client."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning.alpha import GraderRunResponse, GraderValidateResponse

from luthier.graders import grade, sample_of
from luthier.task import Multi, Number, TextSimilarity
from tests.integration.service_harness import Service, sums

pytest_plugins = ("tests.integration.service_fixtures",)

CHECK = {
    "type": "string_check",
    "name": "place",
    "input": "{{sample.output_text}}",
    "reference": "{{item.city}}",
    "operation": "ilike",
}
MULTI = {
    "type": "multi",
    "name": "both",
    "graders": {
        "place": CHECK,
        "wording": {
            "type": "text_similarity",
            "name": "wording",
            "input": "{{sample.output_text}}",
            "reference": "{{item.answer}}",
            "evaluation_metric": "fuzzy_match",
        },
    },
    "calculate_output": "0.75 * place + 0.25 * wording",
}
ITEM = {"city": "Paris", "answer": "It is Paris."}
RUN = "/v1/fine_tuning/alpha/graders/run"
VALIDATE = "/v1/fine_tuning/alpha/graders/validate"


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="none is needed", max_retries=0) as client:
        yield client


def _run(client: OpenAI, grader: Any, sample: str, item: object = ITEM) -> GraderRunResponse:
    run = client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item)
    return GraderRunResponse.model_validate(run.model_dump(by_alias=True), strict=True)


def _errors(run: GraderRunResponse) -> set[str]:
    """The names of the errors that are reported."""
    return {name for name, value in run.metadata.errors.model_dump(by_alias=True).items() if value is True}


def test_openais_client_runs_a_grader(client: OpenAI) -> None:
    run = _run(client, CHECK, "in PARIS, I think")
    assert run.reward == 1.0
    assert run.sub_rewards == {}
    assert run.metadata.scores == {"place": 1.0}
    assert (run.metadata.name, run.metadata.type) == ("place", "string_check")
    assert run.metadata.execution_time >= 0
    assert run.api_model_grader_token_usage_per_model == {}
    assert _errors(run) == set()


def test_a_multi_reports_its_parts_by_name(client: OpenAI) -> None:
    run = _run(client, MULTI, "It is Lyon...")
    wording = run.sub_rewards["wording"]
    assert isinstance(wording, float)
    assert 0 < wording < 1
    assert run.sub_rewards == {"place": 0.0, "wording": wording} == run.metadata.scores
    assert run.reward == 0.25 * wording


def test_the_parts_grade_in_a_multi_as_they_do_alone(client: OpenAI) -> None:
    answer = "We get 3 * 4 = 12"
    parts = {"answer": Number(), "wording": TextSimilarity()}
    multi = Multi(graders=parts, calculate_output="answer + wording")
    item = {"reference": "It is 12."}
    alone = {name: grade(part, item=item, sample=sample_of(answer)) for name, part in parts.items()}
    assert _run(client, multi.model_dump(), answer, item).sub_rewards == alone


@pytest.mark.parametrize(
    ("grader", "sample", "item", "errors"),
    [
        (CHECK, "Paris", {}, {"invalid_variable_error"}),
        (CHECK | {"input": "{{output}}"}, "Paris", ITEM, {"invalid_variable_error"}),
        (CHECK | {"input": "{{sample.output_json.city}}"}, "Paris", ITEM, {"sample_parse_error"}),
        (CHECK | {"input": "{{sample.output_json.city}}"}, '{"town": "Paris"}', ITEM, {"sample_parse_error"}),
        (MULTI | {"calculate_output": "place +"}, "Paris", ITEM, {"formula_parse_error"}),
        (MULTI | {"calculate_output": "place + style"}, "Paris", ITEM, {"formula_parse_error"}),
        (MULTI | {"calculate_output": "1 / (place - 1)"}, "Paris", ITEM, {"other_error"}),
        (MULTI, "Paris", {"city": "Paris"}, {"invalid_variable_error"}),
        ({"type": "number", "reference": "{{item.city}}"}, "12", ITEM, {"other_error"}),
    ],
)
def test_what_goes_wrong_is_reported_in_the_answers_fields(
    client: OpenAI, service: Service, grader: Any, sample: str, item: dict[str, str], errors: set[str]
) -> None:
    run = _run(client, grader, sample, item)
    assert _errors(run) == errors
    [detail] = service.client.run_grader(grader, sample, item).metadata.errors.details
    assert detail
    if grader is MULTI:
        assert run.reward == 0.75  # what could be graded still counts
        assert "graders.wording" in detail
    else:
        assert run.reward == 0.0


def test_the_answers_json_can_be_graded(client: OpenAI) -> None:
    assert _run(client, CHECK | {"input": "{{sample.output_json.city}}"}, '{"city": "paris"}').reward == 1.0


@pytest.mark.parametrize("item", [{"text": "a 🎻"}, {}, {"deep": [[[{}]]]}], ids=str)
def test_an_item_is_any_object_and_may_be_left_out(service: Service, item: dict[str, Any]) -> None:
    plain = {"type": "string_check", "input": "x", "reference": "x"}
    body = {"grader": plain, "model_sample": ""} | ({"item": item} if item else {})
    answer = service.http.post(RUN, json=body)
    assert answer.status_code == 200, answer.text
    assert GraderRunResponse.model_validate(answer.json(), strict=True).reward == 1.0


@pytest.mark.parametrize(
    ("item", "sample"),
    [
        (r'{"a": {"\ud800": 1}}', "x"),  # half a character, in a name that the error would list
        ('{"a": NaN}', "x"),
        ("{}", "[" * 900 + "]" * 900),
        ("{}", "[" * 100_000),
    ],
    ids=["surrogate", "nan", "deep", "unclosed"],
)
def test_odd_input_is_reported_as_well(service: Service, item: str, sample: str) -> None:
    grader = {"type": "string_check", "input": "{{item.a.b}}{{sample.output_json}}", "reference": ""}
    content = f'{{"grader": {json.dumps(grader)}, "model_sample": "{sample}", "item": {item}}}'
    answer = service.http.post(RUN, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert _errors(GraderRunResponse.model_validate(answer.json(), strict=True)) == {"invalid_variable_error"}


def test_openais_client_validates_a_grader(client: OpenAI, service: Service) -> None:
    validated = client.fine_tuning.alpha.graders.validate(grader=CHECK)  # type: ignore[arg-type]
    assert validated.grader is not None
    assert validated.grader.model_dump() == CHECK
    GraderValidateResponse.model_validate(service.http.post(VALIDATE, json={"grader": CHECK}).json(), strict=True)
    assert service.http.post(VALIDATE, json={"grader": MULTI}).json() == {"grader": MULTI}
    multi = client.fine_tuning.alpha.graders.validate(grader=MULTI).grader  # type: ignore[arg-type]
    assert multi is not None
    assert multi.type == "multi"


@pytest.mark.parametrize(
    ("grader", "param", "message"),
    [
        (CHECK | {"operation": "is"}, "grader.operation", "must be 'eq', 'ne', 'like' or 'ilike', not 'is'"),
        (CHECK | {"input": "{{output}}"}, "grader.input", "expected a path that starts with"),
        ({"type": "python", "source": "x"}, "grader", "must be one of 'string_check', 'text_similarity'"),
        ({"type": "score_model"}, "grader", "must be one of 'string_check', 'text_similarity'"),
        (MULTI | {"calculate_output": "place + style"}, "grader.calculate_output", "there is no grader 'style'"),
        (MULTI | {"calculate_output": "1 / place"}, "grader.calculate_output", "place = 0, wording = 0: it divides by"),
        (MULTI | {"graders": {"a": CHECK | {"operation": 1}}}, "grader.graders.a.operation", "must be 'eq'"),
        (MULTI | {"graders": {"a": MULTI}}, "grader.graders.a", "must be one of 'string_check'"),
        (MULTI | {"graders": {}}, "grader.graders", "at least 1 "),
        ({"type": "number", "tolerance": -1}, "grader.tolerance", "must be at least 0, not -1"),
        ({}, "grader", "needs a field 'type'"),
    ],
)
def test_a_wrong_grader_is_refused_by_its_field(client: OpenAI, grader: Any, param: str, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        client.fine_tuning.alpha.graders.validate(grader=grader)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("grader", "param", "message"),
    [
        (MULTI, "task.grader.graders.place.reference", "there is no 'city'"),
        (MULTI | {"calculate_output": "log(place)"}, "task.grader.calculate_output", "place = 0, wording = 0"),
        ({"type": "python", "source": "x"}, "task.grader", "must be one of 'string_check'"),
    ],
)
def test_a_job_is_refused_with_a_wrong_grader(service: Service, grader: Any, param: str, message: str) -> None:
    body = {"training_file": service.upload(sums()), "task": {"grader": grader}}
    answer = service.http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("given", ["name", "json", "file"])
def test_submit_takes_a_graders_name_its_json_or_a_file(service: Service, tmp_path: Path, given: str) -> None:
    own = {"type": "number", "tolerance": 0.5}
    file = tmp_path / "grader.json"
    file.write_text(json.dumps(own))
    option = {"name": "number", "json": json.dumps(own), "file": f"@{file}"}[given]
    submitted = _submit(service, tmp_path, option)
    assert submitted.returncode == 0, submitted.stderr
    [job] = service.client.jobs()
    assert job.luthier.task.grader == (Number() if given == "name" else Number(tolerance=0.5))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("numbr", "--grader must be one of string_check, text_similarity, number, math, a JSON object, or @FILE.json"),
        ("{type: number}", "--grader: the JSON is not valid JSON: "),
        ("@nowhere.json", "--grader: cannot read nowhere.json: "),
        ('{"type": "number", "tolerance": "x"}', "grader.tolerance must be a number, not 'x'"),
        (json.dumps(MULTI | {"calculate_output": "a"}), "grader.calculate_output: "),
    ],
)
def test_submit_names_what_is_wrong_before_it_uploads(
    service: Service, tmp_path: Path, option: str, message: str
) -> None:
    refused = _submit(service, tmp_path, option)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert service.client.files() == []


def _submit(service: Service, folder: Path, grader: str) -> subprocess.CompletedProcess[str]:
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in sums()))
    command = [sys.executable, "-P", "-m", "luthier", "submit", str(data), "--trials", "2", "--grader", grader]
    environment = os.environ | {"LUTHIER_SERVER": service.url, "COLUMNS": "500"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
