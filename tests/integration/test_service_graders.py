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
from pydantic import SecretStr

from luthier.graders import endpoint, grade, sample_of
from luthier.task import Multi, Number, TextSimilarity
from tests.chat_endpoint import ChatEndpoint, chatting
from tests.integration.service_harness import Service, serving, sums

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
PYTHON = {
    "type": "python",
    "name": "own",
    "source": "def grade(sample, item):\n    return 0.5 * (item['city'] in sample['output_text'])",
}
ASKED = [{"role": "user", "content": "How good is this? {{sample.output_text}}"}]
IMAGE = [{"type": "input_image", "image_url": "https://example.org/x.png"}]
SCORE = {"type": "score_model", "name": "polite", "model": "judge", "input": ASKED, "range": [0.0, 10.0]}
LABEL = {
    "type": "label_model",
    "name": "kind",
    "model": "judge",
    "input": ASKED,
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}
JUDGED = LABEL | {"input": [{"role": "user", "content": "Is {{sample.output_text}} {{item.reference}}?"}]}
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
        ({"type": "cosine"}, "grader", "must be one of 'string_check', 'text_similarity'"),
        (PYTHON, "grader.type", "LUTHIER_PYTHON_GRADERS=1"),
        (PYTHON | {"image_tag": "2025-05-08"}, "grader.image_tag", "must be left out"),
        ({"type": "score_model"}, "grader.model", "grader.model is missing; grader.input is missing"),
        (SCORE, "grader.type", "set LUTHIER_GRADER_BASE_URL"),
        (SCORE | {"range": [1, 0]}, "grader.range", "must be two numbers, the lower one first"),
        (SCORE | {"input": [{"role": "user", "content": IMAGE}]}, "grader.input.0.content", "images and audio are not"),
        (LABEL | {"passing_labels": ["best"]}, "grader.passing_labels", "must be among the labels good, bad"),
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
        (PYTHON, "task.grader.type", "LUTHIER_PYTHON_GRADERS=1"),
        (
            MULTI | {"graders": {"place": PYTHON, "wording": SCORE}},
            "task.grader.graders.place.type",
            "LUTHIER_PYTHON_GRADERS",
        ),
        (SCORE, "task.grader.type", "LUTHIER_GRADER_BASE_URL"),
        (LABEL, "task.grader.type", "LUTHIER_GRADER_BASE_URL"),
    ],
)
def test_a_job_is_refused_with_a_wrong_grader(service: Service, grader: Any, param: str, message: str) -> None:
    body = {"training_file": service.upload(sums()), "task": {"grader": grader}}
    answer = service.http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]
    assert service.client.jobs() == []


# Code and models


@pytest.fixture
def chat() -> Iterator[ChatEndpoint]:
    """An endpoint whose score is 8 and whose label is `good`, but for answers that are rude."""

    def say(body: dict[str, Any]) -> str:
        asked = body["messages"][0]["content"]
        if "rude" in asked:
            return "I have no words."
        return json.dumps({"reasoning": "", "result": "good" if '"bad"' in asked else 8})

    with chatting(say) as served:
        yield served


@pytest.fixture
def able(tmp_path: Path, chat: ChatEndpoint) -> Iterator[Service]:
    """A service that may run code, and has an endpoint to ask."""
    settings = {"python_graders": True, "grader_base_url": chat.url, "grader_api_key": SecretStr("sk-secret")}
    with serving(tmp_path / "able", **settings) as service:
        service.add_model()
        yield service


@pytest.fixture
def able_client(able: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{able.url}/v1", api_key="none is needed", max_retries=0) as client:
        yield client


def test_openais_client_runs_code(able_client: OpenAI) -> None:
    run = _run(able_client, PYTHON, "It is Paris.")
    assert (run.reward, run.metadata.type, run.metadata.name) == (0.5, "python", "own")
    assert run.metadata.scores == {"own": 0.5}
    assert _errors(run) == set()


def test_code_that_fails_is_reported_in_the_answers_fields(able_client: OpenAI) -> None:
    run = _run(able_client, PYTHON, "It is Paris.", item={})
    assert run.reward == 0.0
    assert _errors(run) == {"python_grader_runtime_error"}
    assert "KeyError: 'city' (line 2)" in (run.metadata.errors.python_grader_runtime_error_details or "")


@pytest.mark.parametrize(("grader", "reward"), [("score", 8.0), ("label", 1.0)])
def test_openais_client_asks_a_model(able_client: OpenAI, chat: ChatEndpoint, grader: str, reward: float) -> None:
    run = _run(able_client, {"score": SCORE, "label": LABEL}[grader], "With pleasure.")
    assert run.reward == reward
    assert run.metadata.sampled_model_name == "judge"
    assert run.metadata.token_usage == 7
    assert run.api_model_grader_token_usage_per_model == {"judge": 7}
    assert "With pleasure." in chat.asked[0]["messages"][0]["content"]
    assert chat.keys == ["Bearer sk-secret"]


def test_a_model_without_an_opinion_is_reported_in_the_answers_fields(able_client: OpenAI) -> None:
    multi = MULTI | {"graders": {"a": SCORE, "b": PYTHON}, "calculate_output": "a + b"}
    run = _run(able_client, multi, "Paris, you rude man.")
    assert run.reward == 0.5
    assert run.sub_rewards == {"a": 0.0, "b": 0.5}
    assert _errors(run) == {"model_grader_parse_error"}


def test_an_endpoint_in_trouble_is_reported_in_the_answers_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PAUSE_SECONDS", 0.001)
    gone = "http://127.0.0.1:9/v1"
    with (
        serving(tmp_path / "home", grader_base_url=gone) as service,
        OpenAI(base_url=f"{service.url}/v1", api_key="none is needed", max_retries=0) as client,
    ):
        run = _run(client, SCORE, "x")
    assert (run.reward, _errors(run)) == (0.0, {"model_grader_server_error"})
    assert gone in (run.metadata.errors.api_model_grader_server_error_details or "")


@pytest.mark.parametrize("grader", ["python", "score", "label", "multi"])
def test_openais_client_validates_code_and_models(able: Service, able_client: OpenAI, grader: str) -> None:
    wanted: Any = {
        "python": PYTHON,
        "score": SCORE,
        "label": LABEL,
        "multi": MULTI | {"graders": {"place": PYTHON, "wording": SCORE}},
    }[grader]
    assert able_client.fine_tuning.alpha.graders.validate(grader=wanted).grader is not None
    if grader in ("python", "score"):  # labels are not among OpenAI's types of an answer, nor are names of parts
        GraderValidateResponse.model_validate(able.http.post(VALIDATE, json={"grader": wanted}).json(), strict=True)


def test_code_that_cannot_be_loaded_is_refused_with_the_job(able: Service) -> None:
    body = {"training_file": able.upload(sums()), "task": {"grader": PYTHON | {"source": "def grade(sample"}}}
    answer = able.http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "task.grader.source"
    assert "SyntaxError" in answer.json()["error"]["message"]


def test_a_job_keeps_its_grader_and_never_the_key(able: Service) -> None:
    multi = MULTI | {
        "graders": {"place": PYTHON | {"source": PYTHON["source"].replace("city", "prompt")}, "wording": JUDGED}
    }
    job = able.client.job(able.submit(task={"grader": multi}))
    assert isinstance(job.luthier.task.grader, Multi)
    assert [part.type for part in job.luthier.task.grader.graders.values()] == ["python", "label_model"]
    home = able.context.settings.home_dir
    assert not any(b"sk-secret" in file.read_bytes() for file in home.rglob("*") if file.is_file())


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
    command = [
        sys.executable,
        "-P",
        "-m",
        "luthier",
        "submit",
        str(data),
        "--trials",
        "2",
        "--confirmations",
        "0",
        "--grader",
        grader,
    ]
    environment = os.environ | {"LUTHIER_SERVER": service.url, "COLUMNS": "500"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
