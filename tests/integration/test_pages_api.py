"""What pages rest on: one trial with its log and answers, manual designs, notes and tags, rows, the legal space."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from luthier.errors import Conflict, IllegalDesign, NotFound, UserError
from luthier.trial import JobState, LogLine, Sample, TrialState
from luthier.worker_protocol import Assignment, Finished, Heartbeat
from service.jobs.leases import STOPPED
from tests.integration.service_harness import FakeWorker, Service, preferences, serving, sums, texts, wait_until

BASE_ANSWER, TUNED_ANSWER = "I could not say.", "It is 4."
NOW = datetime(2026, 3, 1, tzinfo=UTC)
COLUMNS = {"points": "step", "samples": "base_answer", "log": "lease"}  # of the tables of a trial


class Talking(FakeWorker):
    """Leaves a log and samples as a real worker does."""

    def finish(self, assignment: Assignment, **report: Any) -> Any:
        if report["outcome"] == "complete":
            said = TUNED_ANSWER if assignment.design.stages else BASE_ANSWER
            report["samples"] = (Sample(prompt="What is 2 + 2?", reference="It is 4.", answer=said),)
            report["lines"] = (LogLine(number=1, at=NOW, text="Judged"),)
        return super().finish(assignment, **report)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("pages") / "home") as service:
        service.add_model()
        yield service


@pytest.fixture(scope="module")
def worker(service: Service) -> Talking:
    worker = Talking(service.http)
    worker.register()
    return worker


@pytest.fixture(scope="module")
def done(service: Service, worker: Talking) -> str:
    """A job that has ended."""
    job = service.submit(search={"trials": 4, "confirmations": 0})
    assert worker.work_until_ended(service.client, job) == "succeeded"
    return job


@pytest.fixture
def running(service: Service, worker: Talking) -> Iterator[str]:
    job = service.submit(search={"trials": 6, "confirmations": 0})
    yield job
    if not service.client.job(job).status.terminal:
        service.client.cancel(job)


def test_a_trial_is_found_by_its_number_and_explained_axis_by_axis(service: Service, done: str) -> None:
    best = service.client.best(done)
    trial = service.client.trial(done, str(best.number))
    assert trial == service.client.trial(done, best.trial)
    assert trial.artifacts == best.artifacts
    said = {one.axis: " ".join(one.words) for one in service.client.trial(done, "1").explained}
    assert list(said) == ["learning algorithm", "weight update", "architecture"]
    assert "Supervised fine-tuning" in said["learning algorithm"]
    assert "tiny-chat" in said["architecture"]
    assert " M parameters" in said["architecture"]
    untuned = service.client.trial(done, "0")
    assert "untuned" in untuned.explained[0].words[0]
    with pytest.raises(NotFound, match="'99'"):
        service.client.trial(done, "99")


def test_a_trials_answers_stand_beside_the_bases(service: Service, done: str) -> None:
    [sample] = service.client.samples(done, str(service.client.best(done).number))
    assert (sample.answer, sample.base_answer, sample.reference) == (TUNED_ANSWER, BASE_ANSWER, "It is 4.")


def test_log_lines_that_are_sent_twice_stand_there_once(service: Service, worker: Talking, running: str) -> None:
    held = worker.take()
    line = LogLine(number=0, at=NOW, text="Lease 1 on cpu")
    for _ in range(2):
        beat = Heartbeat(**worker.claim(held), device_seconds=1, lines=(line,))
        worker.post(f"/v1/trials/{held.trial_id}/heartbeat", beat)
    worker.work(held)
    found = service.client.log(running, held.trial_id)
    assert [(one.lease, one.text) for one in found] == [(1, "Lease 1 on cpu"), (1, "Judged")]
    newest = service.http.get(f"/v1/fine_tuning/jobs/{running}/trials/{held.trial_id}/log?limit=1").json()
    assert ([one["text"] for one in newest["data"]], newest["has_more"]) == (["Judged"], True)


def test_a_stopped_training_that_has_a_result_at_every_step_ends_with_it(
    service: Service, worker: Talking, running: str
) -> None:
    worker.work(worker.take())
    held = worker.take()
    assert held.design.self_ending
    service.client.cancel_trial(running, str(held.number))
    told = worker.heartbeat(held)
    assert (told["action"], told["reason"]) == ("wrap_up", STOPPED)
    worker.work(held)
    found = service.client.trial(running, held.trial_id)
    assert (found.stopped, found.state, found.metrics is None) == (True, TrialState.COMPLETE, False)


def test_a_running_trial_that_is_stopped_ends_at_its_next_heartbeat_and_the_job_goes_on(
    service: Service, worker: Talking, running: str
) -> None:
    held = worker.take()
    assert worker.heartbeat(held)["action"] == "continue"
    assert service.client.cancel_trial(running, str(held.number)).state is TrialState.LEASED
    told = worker.heartbeat(held)
    assert (told["action"], told["reason"]) == ("stop", STOPPED)
    worker.finish(held, outcome="cancelled")
    assert service.client.trial(running, held.trial_id).stopped
    with pytest.raises(Conflict, match="cancelled"):
        service.client.cancel_trial(running, held.trial_id)
    assert worker.take().number == held.number + 1
    assert any("was stopped by a user. It ends at its next heartbeat" in said for said in service.messages(running))


@pytest.mark.parametrize("given_back", ["waiting", "lost"])
def test_a_stopped_trial_is_not_taken_up_again(
    service: Service, worker: Talking, running: str, given_back: str
) -> None:
    held = worker.take()
    service.client.cancel_trial(running, held.trial_id)
    if given_back == "waiting":
        finished = Finished(**worker.claim(held), outcome="waiting", device_seconds=1)
        worker.post(f"/v1/trials/{held.trial_id}/finish", finished)
    else:
        worker.register()
    assert service.client.trial(running, held.trial_id).state is TrialState.CANCELLED


def test_a_manual_design_comes_after_the_baselines_and_runs_to_its_end(
    service: Service, worker: Talking, running: str
) -> None:
    added = service.client.add_trial(running, change={"update": "full", "epochs": 2})
    assert (added.number >= 2, added.origin, added.goal) == (True, "user", None)
    assert "full" in added.summary
    assert "≤2ep" in added.summary
    with pytest.raises(Conflict, match=f"rial {added.number} "):
        service.client.add_trial(running, design=added.design.model_dump(mode="json"))
    edited = service.client.add_trial(running, trial=added.id, change={"epochs": 3})
    assert "≤3ep" in edited.summary
    assert worker.work_until_ended(service.client, running) == "succeeded"
    trials = service.client.trials(running)
    assert [trial.state for trial in trials if trial.origin == "user"] == [TrialState.COMPLETE] * 2
    assert len([trial for trial in trials if trial.origin != "confirmation"]) == 6
    with pytest.raises(Conflict, match="succeeded"):
        service.client.add_trial(running, change={"rank": 4})


@pytest.mark.parametrize(
    ("body", "error", "param", "message"),
    [
        ({}, UserError, "design", "either `design`, a whole one, or `change`"),
        ({"change": {"rank": 0}}, IllegalDesign, "change.rank", "choose from 1 to 1024"),
        ({"change": {"algorithm": "dpo"}}, IllegalDesign, "change.algorithm", "no rejected one"),
        ({"change": {"rank": 4}, "trial": "77"}, NotFound, "trial", "no trial '77'"),
        ({"design": {"architecture": {"base": "tiny-chat"}}}, IllegalDesign, "design.stages", "is trial 0"),
    ],
)
def test_a_manual_design_is_checked(
    service: Service, running: str, body: dict[str, Any], error: type[UserError], param: str, message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        service.client.add_trial(running, **body)
    assert refused.value.param == param


def test_no_more_designs_are_added_than_the_job_has_trials(service: Service, worker: Talking) -> None:
    job = service.submit(search={"trials": 3, "confirmations": 0})
    service.client.add_trial(job, change={"rank": 4})
    with pytest.raises(Conflict, match=" 3"):
        service.client.add_trial(job, change={"rank": 8})
    service.client.cancel(job)


def test_notes_and_tags_stand_beside_a_job_and_change_nothing_else(service: Service, done: str) -> None:
    before = service.client.job(done)
    after = service.client.describe(done, notes="Looks *good*.", tags=["violin", "violin", "süß"])
    assert (after.luthier.notes, after.luthier.tags) == ("Looks *good*.", ("violin", "süß"))
    assert service.client.describe(done, tags=[]).luthier.notes == "Looks *good*."
    assert service.client.describe(done, notes="") == before


def test_rows_are_read_page_by_page_and_found_by_what_stands_in_them(service: Service) -> None:
    file = service.upload(sums(25))
    page = service.client.rows(file, first=21, limit=4)
    assert [row["prompt"] for row in page.data] == [f"What is {n} + {n}?" for n in range(20, 24)]
    assert (page.numbers, page.total, page.has_more) == ((21, 22, 23, 24), 25, True)
    found = service.client.rows(file, contains="IS 48")
    assert ([row["completion"] for row in found.data], found.numbers, found.total) == (["It is 48."], (25,), 1)


def test_the_space_of_a_request_lists_what_is_legal_and_why_the_rest_is_not(service: Service) -> None:
    found = service.client.design_space(service.upload(texts()))
    axes = {axis.name: {choice.value: choice for choice in axis.choices} for axis in found.axes}
    assert (found.kind, found.family, found.problem) == ("text", "decoder", None)
    assert [name for name, choice in axes["algorithm"].items() if choice.searched] == ["clm"]
    assert (axes["algorithm"]["sft"].why or "").startswith("sft does not go with text data: plain text")
    assert "biases, and tiny-chat has none" in (axes["update"]["bitfit"].why or "")
    assert axes["update"]["lora"].about == "Low-rank adapters on linear layers (Hu et al. 2021), scaled by alpha/rank."
    assert "bitsandbytes" in (axes["update"]["qlora"].why or "")
    assert found.default is not None
    assert found.device_seconds == pytest.approx(found.trainings * found.default.seconds)
    assert service.client.design_space(service.upload(texts()), search={"device_seconds": 1.0}).device_seconds == 1.0


def test_pins_narrow_the_space_and_a_pin_that_leaves_nothing_is_its_problem(service: Service) -> None:
    file = service.upload(preferences())
    pinned = service.client.design_space(file, search={"pin": {"algorithm": ["dpo"], "update": ["full", "lora"]}})
    axes = {axis.name: axis for axis in pinned.axes}
    assert [one.value for one in axes["update"].choices if one.searched] == ["full", "lora"]
    assert (axes["beta"].low, axes["beta"].high) == (0.02, 0.5)
    assert axes["update"].pinned
    wrong = service.client.design_space(file, search={"pin": {"rank": [0]}})
    assert wrong.problem is not None
    assert wrong.problem.param == "search.pin.rank"
    assert not any(one.searched for axis in wrong.axes for one in axis.choices)
    assert any(one.legal for axis in wrong.axes for one in axis.choices)
    graded = service.client.design_space(kind="prompts", rows=64, task={"grader": {"type": "number"}})
    assert "grpo" in [
        one.value for axis in graded.axes if axis.name == "algorithm" for one in axis.choices if one.searched
    ]
    with pytest.raises(UserError, match="`training_file`"):
        service.client.design_space()


def test_a_request_that_would_be_searched_is_searched_so(service: Service, worker: Talking) -> None:
    file = service.upload(sums())
    space = service.client.design_space(file, search={"trials": 2})
    job = service.client.create_job(file, search={"trials": 2})
    wait_until(lambda: service.client.job(job.id).status is JobState.RUNNING)
    models = [one.value for axis in space.axes if axis.name == "model" for one in axis.choices if one.searched]
    assert tuple(models) == service.client.job(job.id).luthier.search.pin.model
    service.client.cancel(job.id)


def test_every_table_of_the_pages_is_there_as_csv_and_json(service: Service, done: str) -> None:
    file = service.client.job(done).training_file
    best = service.client.best(done).number
    tables = {
        "/datasets": "filename",
        f"/datasets/{file}/rows": "prompt",
        "/workers": "memory_bytes",
        "/models": "parameters",
        "/schedules": None,  # there is none here
        **{f"/jobs/{done}/trials/{best}/{name}": column for name, column in COLUMNS.items()},
    }
    for path, column in tables.items():
        csv, found = service.http.get(f"{path}.csv"), service.http.get(f"{path}.json")
        assert csv.headers["content-type"].startswith("text/csv")
        assert all(column in line for line in found.json()[:1]), path
        assert column is None or column in csv.text.splitlines()[0].split(","), path
        assert service.http.get(f"{path}.xml").status_code == 404


def test_pages_of_what_is_not_there_say_so(service: Service, done: str) -> None:
    browser = {"accept": "text/html"}
    for path in (
        f"/jobs/{done}/trials/99",
        "/datasets/file-none",
        "/schedules/sched-none",
        f"/jobs/{done}/trials/0/x.csv",
    ):
        answer = service.http.get(path, headers=browser)
        assert (answer.status_code, "text/html" in answer.headers["content-type"]) == (404, True), path
