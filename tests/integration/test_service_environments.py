"""Jobs that learn from an environment: rows made at admission, kept as a file, split, and judged by its reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from luthier.dataset import read_rows
from luthier.dataset.rows import prompt_hash
from luthier.store import jobs
from luthier.task import EnvironmentSpec
from tests.integration.service_harness import FakeWorker, Service, serving, sums

pytest_plugins = ("tests.integration.service_fixtures",)

MOVE = {"name": "tools/move", "rows": 120}


def refusal(service: Service, **body: Any) -> dict[str, Any]:
    answer = service.http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_the_rows_are_a_file_that_can_be_looked_at_and_downloaded(service: Service) -> None:
    job = service.client.create_job(task={"environment": MOVE}, seed=1)
    file = service.client.file(job.training_file)
    assert file.filename == "tools-move-120.jsonl"
    assert file.luthier.kind == job.luthier.kind == "chat"
    assert len(read_rows(service.client.file_content(file.id))) == file.luthier.rows == 120
    assert [listed.id for listed in service.client.files()] == [file.id]
    assert service.client.dataset(file.id).rows == 120


def test_the_reward_of_the_environment_is_what_trials_are_compared_by(service: Service) -> None:
    job = service.client.create_job(task={"environment": MOVE})
    with service.context.database.read() as c:
        judge = jobs.get(c, job.id).judge
    assert judge.environment == EnvironmentSpec(**MOVE)
    assert judge.grader is None
    assert judge.objective == job.luthier.objective == "reward"
    assert "reward of tools/move" in service.messages(job.id)[0]


def test_a_worker_is_told_of_the_environment(service: Service, worker: FakeWorker) -> None:
    service.client.create_job(task={"environment": MOVE})
    assert worker.take().judge.environment == EnvironmentSpec(**MOVE)


def test_no_prompt_is_in_two_splits(service: Service) -> None:
    job = service.client.create_job(task={"environment": MOVE})
    with service.context.database.read() as c:
        record = jobs.get(c, job.id)
    splits = []
    for digest in (record.train, record.judge.validation, record.judge.test):
        with service.context.blobs.open(digest) as stream:
            splits.append({prompt_hash(row, record.judge.kind) for row in read_rows(stream.read())})
    train, validation, test = splits
    assert train
    assert len(validation) >= 2
    assert len(test) >= 2
    assert not train & validation
    assert not (train | validation) & test


def test_the_seed_of_the_job_is_the_seed_of_its_rows(service: Service) -> None:
    def content(seed: int) -> bytes:
        job = service.client.create_job(task={"environment": MOVE}, seed=seed)
        return service.client.file_content(job.training_file)

    assert content(1) == content(1)
    assert content(1) != content(2)


def test_the_openai_client_reads_a_job_that_has_no_file_of_its_users(service: Service) -> None:
    job = service.client.create_job(task={"environment": MOVE})
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="none", http_client=httpx.Client(trust_env=False)
    ) as client:
        seen = client.fine_tuning.jobs.retrieve(job.id)
        assert client.files.retrieve(seen.training_file).filename == "tools-move-120.jsonl"


def test_a_task_of_reasoning_gym_makes_pairs(service: Service) -> None:
    spec = {"name": "reasoning_gym/chain_sum", "options": {"max_terms": 2, "max_digits": 1}, "rows": 60}
    job = service.client.create_job(task={"environment": spec})
    assert job.luthier.kind == "pairs"
    rows = read_rows(service.client.file_content(job.training_file))
    assert all(row["prompt"] and row["completion"] for row in rows)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "training_file", "task.environment"),
        ({"task": {"environment": MOVE}, "training_file": "file-1"}, "training_file", "task.environment"),
        ({"task": {"environment": MOVE}, "validation_file": "file-1"}, "validation_file", "task.environment"),
        ({"task": {"environment": MOVE, "grader": {"type": "number"}}}, "task.grader", "task.environment"),
        ({"task": {"environment": {"name": "tools/mvoe"}}}, "task.environment.name", "did you mean tools/move"),
        (
            {"task": {"environment": {"name": "tools/move", "options": {"boxes": 99}}}},
            "task.environment.options.boxes",
            "less than or equal to 8",
        ),
        ({"task": {"environment": {"name": "tools/move", "rows": 1}}}, "task.environment.rows", "at least 20"),
        ({"task": {"environment": {"name": "tools/move", "max_turns": 0}}}, "task.environment.max_turns", "at least 1"),
    ],
)
def test_a_wrong_request_is_refused_and_leaves_nothing(
    service: Service, body: dict[str, Any], param: str, words: str
) -> None:
    error = refusal(service, **body)
    assert error["param"] == param
    assert words in error["message"]
    assert service.client.files() == []
    assert service.client.jobs() == []


def test_rows_that_take_too_long_are_not_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path / "home", generation_seconds=0.05) as service:
        service.add_model()
        error = refusal(service, task={"environment": MOVE})
    assert error["param"] == "task.environment.rows"
    assert "120 rows" in error["message"]
    assert "0.05 s" in error["message"]


def test_the_listing_says_what_there_is_and_with_which_options(bare: Service) -> None:
    listed = {environment.name: environment for environment in bare.client.environments()}
    assert listed["tools/move"].summary.startswith("One tool and one step")
    assert listed["tools/move"].options["boxes"]["default"] == 3
    assert listed["reasoning_gym/chain_sum"].options["max_terms"]["type"] == "integer"
    assert "reasoning_gym/game_of_life_halting" not in listed


def test_rows_without_right_answers_are_for_reward_maximisers_alone(service: Service) -> None:
    spec = {"name": "reasoning_gym/graph_color", "rows": 40}
    job = service.client.create_job(task={"environment": spec})
    assert job.luthier.kind == "prompts"
    error = refusal(service, task={"environment": spec}, search={"pin": {"algorithm": ["sft"]}})
    assert error["param"] == "search.pin.algorithm"


def test_reward_maximisers_need_no_grader_beside_an_environment(service: Service) -> None:
    job = service.client.create_job(task={"environment": MOVE}, search={"pin": {"algorithm": ["grpo"]}})
    assert job.luthier.search.pin.algorithm == ("grpo",)
    by_method = service.client.create_job(task={"environment": MOVE}, method={"type": "reinforcement"})
    assert by_method.method is not None
    assert by_method.method["type"] == "reinforcement"


def test_a_file_of_ones_own_still_makes_a_job(service: Service) -> None:
    assert service.client.job(service.submit(sums())).luthier.task.environment is None
