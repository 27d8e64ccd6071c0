"""A search that has ended goes on with more budget: nothing is repeated, and the winner may change."""

import html
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from openai import OpenAI

from luthier.errors import Conflict, UserError
from luthier.store import aliases, jobs, trials
from luthier.trial import JobState, Metrics, TrialState
from luthier.worker_protocol import Assignment
from service.jobs import budget
from tests.commands import run
from tests.integration.service_harness import FakeWorker, Service, metrics, row_scores
from tests.integration.test_service_halving import pause

pytest_plugins = ("tests.integration.service_fixtures",)

SMALL = {"trials": 4, "finalists": 1, "confirmations": 1, "memory": False}


class Scorer(FakeWorker):
    """The test rows like what the validation rows like, so that the winner is recommended."""

    def finish(self, assignment: Assignment, **report: Any) -> httpx.Response:
        if report.get("test_metrics") is not None:
            scored = self.score(assignment)
            report |= {"test_metrics": scored, "test_scores": row_scores(scored)}
        return super().finish(assignment, **report)


def better_from(number: int) -> Callable[[Assignment], Metrics]:
    """The first designs are middling, and those from `number` on are good; repeats of a design score like it."""
    first: dict[str, int] = {}

    def score(assignment: Assignment) -> Metrics:
        if assignment.number == 0:
            return metrics(9.0)
        design = first.setdefault(assignment.design.digest(), assignment.number)
        return metrics(1.0 if design >= number else 4.0 + design / 100)

    return score


def ended(service: Service, worker: FakeWorker, **search: object) -> str:
    job_id = service.submit(search={**SMALL, **search}, seed=7, suffix="more")
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    return job_id


def test_an_extended_search_tries_new_designs_only_and_counts_both_parts(service: Service, worker: FakeWorker) -> None:
    job_id = ended(service, worker)
    before = service.client.trials(job_id)
    model = service.client.job(job_id).fine_tuned_model
    job = service.client.extend(job_id, trials=3)
    assert job.status.value in ("queued", "running")
    assert job.finished_at is None
    assert job.fine_tuned_model == model, "the earlier result stays in use"
    assert (job.luthier.search.trials, job.luthier.trials_total) == (7, 7)
    assert [(one.trials, one.first_trial) for one in job.luthier.extensions] == [(3, len(before))]
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    after = service.client.trials(job_id)
    assert [one.id for one in after[: len(before)]] == [one.id for one in before]
    assert [one.device_seconds for one in after[: len(before)]] == [one.device_seconds for one in before]
    new = after[len(before) :]
    designs = [one for one in new if one.confirms is None]
    assert len(designs) == 3
    assert not {one.design.digest() for one in designs} & {one.design.digest() for one in before}
    assert len({(one.design.digest(), one.seed) for one in after}) == len(after)


def test_a_better_design_found_later_takes_the_place_of_a_repeated_one(service: Service) -> None:
    worker = Scorer(service.http)
    worker.register()
    worker.score = better_from(6)
    job_id = ended(service, worker)
    first = service.client.best(job_id)
    with service.context.database.begin() as c:
        aliases.point(c, "prod", jobs.get(c, job_id), "user", datetime.now(UTC))
    service.client.extend(job_id, trials=4)
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    winner = service.client.best(job_id)
    assert winner.number >= 6
    assert winner.seeds == 2, "it was repeated before it won"
    assert winner.test_metrics is not None
    assert {one.kind for one in winner.artifacts} >= {"merged"}
    changed = [event for event in service.client.events(job_id) if event.data and event.data.get("before")]
    assert [(event.data["trial"], event.data["before"]) for event in changed if event.data] == [
        (winner.trial, first.trial)
    ]
    with service.context.database.read() as c:
        assert aliases.get(c, "prod").trial_id == winner.trial
    assert service.client.alias("prod").model == winner.model


def test_the_finalists_of_before_are_not_repeated_again(service: Service, worker: FakeWorker) -> None:
    worker.score = lambda assignment: metrics(9.0 if assignment.number == 0 else 1.0 + assignment.number / 10)
    job_id = ended(service, worker)
    won = service.client.best(job_id).number
    before = [one.number for one in service.client.trials(job_id) if one.confirms is not None]
    service.client.extend(job_id, trials=3)
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    assert service.client.best(job_id).number == won
    assert [one.number for one in service.client.trials(job_id) if one.confirms is not None] == before


def test_a_trial_that_paused_when_the_budget_was_spent_is_resumed_from_its_checkpoint(
    service: Service, worker: FakeWorker
) -> None:
    def score(assignment: Assignment) -> Metrics:
        late = 0.5 if assignment.fence > 1 else 2.0  # it becomes the best one later
        return metrics({0: 9.0, 1: 5.0, 2: 1.0, 3: late}.get(assignment.number, 6.0))

    worker.score = score
    job_id = service.submit(
        search={"trials": 14, "finalists": 2, "confirmations": 0, "device_seconds": 10.0, "memory": False}
    )
    for _ in range(2):
        worker.work(worker.take())
    pause(worker, 2)
    manifest = pause(worker, 3)
    best = worker.take()
    assert best.number == 2, "it is promoted, and ends with the budget"
    worker.heartbeat(best, seconds=8.0)
    worker.finish(best, outcome="complete", metrics=metrics(1.0), device_seconds=8.0)
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    assert service.client.best(job_id).number == 2
    with service.context.database.read() as c:
        kept = trials.named(c, job_id, "3")
    assert (kept.state, kept.checkpoint) == (TrialState.PRUNED, manifest)
    service.client.extend(job_id, device_seconds=40.0)
    seen: list[Assignment] = []
    worker.done = seen
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    [resumed] = [one for one in seen if one.number == 3]
    assert resumed.checkpoint == manifest
    assert service.client.best(job_id).number == 3


def test_what_cannot_be_extended_is_refused_with_the_field(service: Service, worker: FakeWorker) -> None:
    running = service.submit(search=SMALL)
    with pytest.raises(Conflict):
        service.client.extend(running, trials=3)
    service.client.cancel(running)
    with pytest.raises(Conflict):
        service.client.extend(running, trials=3)
    job_id = ended(service, worker, device_seconds=100.0)
    for more, param in (
        ({}, "trials"),
        ({"device_seconds": 50.0}, "trials"),
        ({"trials": 9_999}, "trials"),
        ({"deadline": datetime.now(UTC) - timedelta(hours=1)}, "deadline"),
    ):
        with pytest.raises(UserError) as refused:
            service.client.extend(job_id, **more)
        assert refused.value.param == param
    assert service.client.job(job_id).status == "succeeded"
    assert service.client.job(job_id).luthier.extensions == ()


@pytest.mark.parametrize("gone", ["model", "file", "base"])
def test_a_job_whose_data_or_models_are_gone_is_not_extended(service: Service, worker: FakeWorker, gone: str) -> None:
    job_id = ended(service, worker)
    job = service.client.job(job_id)
    match gone:
        case "model":
            service.http.delete(f"/v1/models/{job.fine_tuned_model}").raise_for_status()
        case "file":
            service.client.delete_file(job.training_file)
        case _:
            service.http.delete("/v1/models/tiny-chat").raise_for_status()
    with pytest.raises(Conflict):
        service.client.extend(job_id, trials=3)
    assert service.client.job(job_id).status == "succeeded"


def test_openais_client_reads_an_extended_job(service: Service, worker: FakeWorker) -> None:
    job_id = ended(service, worker)
    service.client.extend(job_id, trials=2)
    seen = OpenAI(base_url=f"{service.url}/v1", api_key="none").fine_tuning.jobs.retrieve(job_id)
    assert seen.status in ("queued", "running")
    assert seen.finished_at is None
    kinds = []
    for update in service.client.stream(job_id):
        kinds.append(update.kind)
        if update.kind == "event" and update.data and "Extended" in update.data.message:
            break
    assert {"job", "trial", "event"} <= set(kinds), "the stream does not end where the job ended first"


def test_the_command_line_and_the_page_extend_a_job(service: Service, worker: FakeWorker) -> None:
    job_id = ended(service, worker, device_seconds=100.0)
    page = service.http.get(f"/jobs/{job_id}").text
    assert f"POST /v1/fine_tuning/jobs/{job_id}/extend" in page
    done = run("extend", "last", "--trials", "2", "--seconds", "30", "--json", "--server", service.url)
    assert done.returncode == 0, done.stderr
    search = json.loads(done.stdout)["luthier"]["search"]
    assert (search["trials"], search["device_seconds"]) == (6, 130.0)
    assert "/extend" not in service.http.get(f"/jobs/{job_id}").text
    assert run("extend", "last", "--server", service.url).returncode == 2


def test_a_refused_extension_says_how_much_suffices(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={**SMALL, "trials": 8, "device_seconds": 6.0}, seed=7)
    for _ in range(2):
        worker.work(worker.take())
    running = worker.take()
    assert running.number == 2
    worker.heartbeat(running, seconds=30.0)
    worker.finish(running, outcome="cancelled", device_seconds=30.0)
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    with pytest.raises(UserError) as refused:
        service.client.extend(job_id, trials=2)
    assert refused.value.param == "device_seconds"
    least = int(re.search(r"--seconds (\d+)", refused.value.message).group(1))  # type: ignore[union-attr]
    with pytest.raises(UserError) as refused:
        service.client.extend(job_id, trials=2, device_seconds=least / 2)
    assert refused.value.param == "device_seconds"
    body = re.search(r'/extend" data-body="([^"]+)"', service.http.get(f"/jobs/{job_id}").text)
    assert body is not None
    offered = json.loads(html.unescape(body.group(1)))
    assert offered["device_seconds"] >= least
    assert service.client.extend(job_id, trials=2, device_seconds=least).luthier.search.device_seconds == 6.0 + least


def test_the_wall_clock_time_of_an_extended_job_counts_all_its_runs(service: Service, worker: FakeWorker) -> None:
    job_id = ended(service, worker)
    with service.context.database.read() as c:
        before = jobs.get(c, job_id)
    first = budget.wall_clock(before, datetime.now(UTC))
    service.client.extend(job_id, trials=2)
    with service.context.database.read() as c:
        again = jobs.get(c, job_id)
    assert again.extensions[0].ran == first
    assert again.started_at is not None
    later = again.started_at + timedelta(seconds=90)
    found = again.model_copy(update={"state": JobState.RUNNING, "finished_at": None})
    assert budget.wall_clock(found, later) == pytest.approx((first or 0.0) + 90)
