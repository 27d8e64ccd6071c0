"""What is frozen when a job is created: its judge, its splits, its models and its seed."""

import pytest

from tests.integration.service_harness import (
    FakeWorker,
    Service,
    preferences,
    sums,
    texts,
    unpaired,
)

pytest_plugins = ("tests.integration.service_fixtures",)


@pytest.mark.parametrize(
    ("rows", "task", "objective", "grader"),
    [
        (texts(), {}, "perplexity", None),
        (sums(), {}, "perplexity", "text_similarity"),
        (sums(), {"grader": {"type": "string_check"}}, "reward", "string_check"),
        (preferences(), {}, "reward", None),
        (unpaired(), {}, "reward", None),
    ],
    ids=["text", "pairs", "graded pairs", "preferences", "unpaired"],
)
def test_the_judge_follows_from_the_data_and_the_task(
    service: Service, worker: FakeWorker, rows: list, task: dict, objective: str, grader: str | None
) -> None:
    job_id = service.submit(rows, task=task, search={"trials": 2, "confirmations": 0})
    judge = worker.take().judge
    assert (judge.objective, judge.grader and judge.grader.type) == (objective, grader)
    assert 16 <= judge.max_new_tokens <= 128
    assert service.client.job(job_id).luthier.objective == objective


LONG = [{**row, "completion": "a long answer, " * 600} for row in sums()]  # about 2250 tokens each


@pytest.mark.parametrize(
    ("rows", "pin", "read", "factors"),
    [
        (sums(), {}, (512, 512), {None}),  # as the tiny model's context is
        (LONG, {}, (2048, 2048), {None, 2.0, 4.0}),
        (LONG, {"rope_factor": [1]}, (512, 512), {None}),
        (sums(), {"rope_factor": [8]}, (4096, 4096), {8.0}),
        ([{"text": row["prompt"] + row["completion"]} for row in LONG], {}, (512, 512), {None}),
    ],
    ids=["short rows", "long rows", "long rows, pinned", "short rows, pinned", "text"],
)
def test_all_trials_read_rows_as_long_as_the_longest_context_that_is_searched(
    service: Service, worker: FakeWorker, rows: list, pin: dict, read: tuple[int, int], factors: set
) -> None:
    trials = 14 if len(factors) > 1 else 6  # enough for each factor to be tried
    job_id = service.submit(rows, search={"trials": trials, "confirmations": 0, "pin": pin})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    assert {(trial.judge.window, trial.judge.max_tokens) for trial in worker.done} == {read}
    tried = [trial for trial in service.client.trials(job_id) if trial.number > 1]
    found = {trial.design.architecture.rope_factor for trial in tried}
    assert found <= factors
    assert max(found, key=lambda factor: factor or 0) == max(factors, key=lambda factor: factor or 0)
    assert not any(trial.design.architecture.edited for trial in worker.done if trial.number <= 1)


def test_train_validation_and_test_rows_share_no_prompt(service: Service, worker: FakeWorker) -> None:
    service.submit(sums(200), search={"trials": 2, "confirmations": 0})
    assignment = worker.take()
    digests = (assignment.train, assignment.judge.validation, assignment.judge.test)
    splits = [service.http.get(f"/v1/blobs/{digest}").text.splitlines() for digest in digests]
    assert sum(map(len, splits)) == 200
    assert len(set().union(*splits)) == 200
    assert all(len(split) >= 10 for split in splits)


def test_rows_of_the_validation_file_are_left_out_of_training_and_an_event_says_so(service: Service) -> None:
    validation = service.upload(sums(12), "validation.jsonl")
    job_id = service.submit(validation_file=validation, search={"trials": 2, "confirmations": 0})
    assert any("Left out 12 training rows" in message for message in service.messages(job_id))


def test_a_model_registered_later_is_not_in_a_running_search(service: Service) -> None:
    job_id = service.submit(search={"trials": 8, "confirmations": 0})
    service.add_model("another")
    assert service.client.job(job_id).luthier.search.pin.model == ("tiny-chat",)


def test_the_same_seed_proposes_the_same_designs(service: Service, worker: FakeWorker) -> None:
    first, second = (service.submit(search={"trials": 8, "confirmations": 0}, seed=7) for _ in range(2))
    for job_id in (first, second):
        worker.work_until_ended(service.client, job_id)
    designs = [[trial.design for trial in service.client.trials(job_id)] for job_id in (first, second)]
    assert designs[0] == designs[1]


def test_where_likelihood_decides_a_grader_brings_no_rollouts(service: Service) -> None:
    graded = {"grader": {"type": "string_check"}}
    counted = service.submit(task=graded, search={"trials": 4, "confirmations": 0, "objective": "perplexity"})
    rewarded = service.submit(task=graded, search={"trials": 4, "confirmations": 0})
    pinned = service.submit(
        task=graded, search={"trials": 4, "confirmations": 0, "objective": "perplexity", "pin": {"algorithm": ["grpo"]}}
    )
    recipes = {job: service.client.job(job).luthier.search.pin.algorithm for job in (counted, rewarded, pinned)}
    assert recipes == {counted: ("sft", "clm"), rewarded: None, pinned: ("grpo",)}
