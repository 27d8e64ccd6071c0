"""A job's life, from its creation to its end, with a worker that speaks the real protocol."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from luthier.errors import Conflict
from luthier.store import artifacts, jobs
from luthier.trial import JobState, TrialState
from luthier.worker_protocol import Assignment, CheckpointSaved, Finished
from service.blob_gc import GRACE
from service.jobs.reconcile import tick
from tests.integration.service_harness import (
    FakeWorker,
    Service,
    metrics,
    preferences,
    serving,
    wait_until,
)

pytest_plugins = ("tests.integration.service_fixtures",)


def test_a_job_runs_to_its_end_and_the_best_trial_wins(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 6, "confirmations": 0}, suffix="sums")

    assert worker.work_until_ended(service.client, job_id) == "succeeded"

    job, best = service.client.job(job_id), service.client.best(job_id)
    assert best.number == 5
    assert best.metrics.bits_per_byte == pytest.approx(2.95)
    assert job.luthier.best is not None
    assert job.luthier.best.trial == best.trial
    assert job.fine_tuned_model == f"ft:tiny-chat:sums:{job_id[-8:]}"
    assert (job.model, job.trained_tokens, job.luthier.trials_done) == ("tiny-chat", 5000, 6)
    assert job.luthier.device_seconds == 6.0
    assert job.finished_at is not None
    assert job.error is None


def test_the_baselines_come_first_and_stand_beside_the_winner(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 4, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)

    trials_ = service.client.trials(job_id)
    best = service.client.best(job_id)
    assert [trial.number for trial in trials_] == [0, 1, 2, 3]
    assert [trial.origin for trial in trials_][:2] == ["baseline", "baseline"]
    assert trials_[0].design.stages == ()
    assert trials_[1].design.stages[0].update.kind == "lora"
    assert best.base_metrics == trials_[0].metrics
    assert best.default_metrics == trials_[1].metrics
    assert best.base_test_metrics is not None
    assert best.default_test_metrics is not None
    assert best.test_metrics is not None


def test_the_events_tell_the_story_in_order(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)

    story = [message.split(":")[0].split(";")[0] for message in service.messages(job_id)]
    assert story == [
        "Created",
        "Few rows to choose by",
        "Running",
        "Trial 0 started on fake",
        "Trial 0 complete",
        "Trial 1 started on fake",
        "Trial 1 complete",
        "Trial 1 is the best so far",
        "Trial 2 started on fake",
        "Trial 2 complete",
        "Trial 2 is the best so far",
        "No more trials",
        "Finished",
        "On test rows, which the search did not see",
        "Use trial 2",
    ]
    scored = [event for event in service.client.events(job_id) if event.type == "metrics"]
    assert scored[0].data is not None
    assert scored[0].data["metrics"]["bits_per_byte"] == pytest.approx(2.98)
    assert "2.98 bits per byte" in scored[0].message


def test_curves_are_kept_by_name(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    assignment = worker.take()
    worker.heartbeat(assignment, loss=2.5, learning_rate=0.1)

    points = service.client.points(job_id, assignment.trial_id, "loss")
    assert [(point.name, point.value) for point in points] == [("loss", 2.5)]
    assert len(service.client.points(job_id, assignment.trial_id)) == 2


def test_a_job_that_does_not_beat_its_base_says_so(service: Service, worker: FakeWorker) -> None:
    worker.score = lambda assignment: metrics(2.0 + assignment.number / 10)
    job_id = service.submit(search={"trials": 3, "confirmations": 0})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"

    best = service.client.best(job_id)
    assert (best.number, best.winner) == (0, 1)
    last = service.client.events(job_id)[0]
    assert best.recommendation is not None
    assert (last.level, last.message) == ("warn", " ".join(best.recommendation.words))


def test_a_job_whose_trained_trials_all_fail_is_failed_with_the_first_error(
    service: Service, worker: FakeWorker
) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0})
    for number in range(3):
        assignment = worker.take()
        assert assignment.number == number
        if assignment.design.stages:
            worker.finish(assignment, outcome="failed", error=f"the loss of trial {number} is not a number")
        else:
            worker.work(assignment)
    wait_until(lambda: service.client.job(job_id).status.terminal)

    job = service.client.job(job_id)
    assert job.status is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "trial_failed"
    assert "trial 1" in job.error.message
    assert job.error.message.endswith("the loss of trial 1 is not a number")
    assert service.client.best(job_id).number == 0


def test_a_complete_trial_without_the_deciding_metric_is_a_failed_one(service: Service, worker: FakeWorker) -> None:
    service.submit(search={"trials": 2, "confirmations": 0, "objective": "reward"})
    answer = worker.finish(worker.take(), outcome="complete", metrics=metrics(1.0, reward=None))
    assert answer.json()["state"] == "failed"
    assert "reward" in answer.json()["error"]


def test_an_infeasible_trial_is_told_and_does_not_end_the_job(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0})
    worker.work(worker.take())
    worker.finish(worker.take(), outcome="infeasible", error="it needs 9 GiB")
    worker.work(worker.take())
    wait_until(lambda: service.client.job(job_id).status.terminal)
    assert service.client.job(job_id).status is JobState.SUCCEEDED
    assert "Trial 1 is not possible: it needs 9 GiB" in service.messages(job_id)


def test_a_base_model_that_cannot_run_ends_the_job_at_once_with_the_reason(
    service: Service, worker: FakeWorker
) -> None:
    job_id = service.submit(search={"trials": 9, "confirmations": 0})
    worker.finish(worker.take(), outcome="infeasible", error="it cannot be loaded")
    wait_until(lambda: service.client.job(job_id).status.terminal)
    job = service.client.job(job_id)
    assert job.status is JobState.FAILED
    assert job.error is not None
    assert "it cannot be loaded" in job.error.message
    assert len(service.client.trials(job_id)) <= 2
    with service.context.database.read() as c:
        assert jobs.get(c, job_id).ended_reason == "base_infeasible"


def test_a_base_model_that_cannot_run_stops_the_trials_that_run_already(service: Service, worker: FakeWorker) -> None:
    other = FakeWorker(service.http, name="other")
    other.register()
    job_id = service.submit(search={"trials": 9, "confirmations": 0})
    base, running = worker.take(), other.take()
    worker.finish(base, outcome="infeasible", error="it cannot be loaded")
    assert other.heartbeat(running)["action"] == "stop"
    other.finish(running, outcome="cancelled")
    wait_until(lambda: service.client.job(job_id).status.terminal)
    assert len(service.client.trials(job_id)) == 2


def test_cancelling_stops_the_running_trial_at_its_next_heartbeat(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 8, "confirmations": 0})
    worker.work(worker.take())
    assignment = worker.take()
    assert worker.heartbeat(assignment)["action"] == "continue"

    assert service.client.cancel(job_id).status is JobState.CANCELLED
    directive = worker.heartbeat(assignment)
    assert (directive["action"], directive["reason"]) == ("stop", "the job is cancelled")
    worker.finish(assignment, outcome="cancelled")

    assert worker.lease() is None
    assert {trial.state for trial in service.client.trials(job_id)} == {TrialState.COMPLETE, TrialState.CANCELLED}
    with pytest.raises(Conflict, match="cancelled"):
        service.client.cancel(job_id)


def test_nothing_runs_past_the_budget_of_device_seconds(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 50, "confirmations": 0, "device_seconds": 10.0})
    for _ in range(2):
        worker.work(worker.take())
    assignment = worker.take()
    assert worker.heartbeat(assignment, seconds=3.9)["action"] == "continue"
    assert worker.heartbeat(assignment, seconds=4.1)["action"] == "wrap_up", "scoring it and the default takes 4 s"
    directive = worker.heartbeat(assignment, seconds=8.5)
    assert (directive["action"], directive["reason"]) == ("stop", "the budget of 10 device-seconds is spent")
    worker.finish(assignment, outcome="cancelled", device_seconds=8.5)
    default = worker.take()
    assert (default.number, default.wrap_up_at) == (1, default.device_seconds), "it pauses, and is only scored"
    worker.work(default)
    wait_until(lambda: service.client.job(job_id).status.terminal)

    job = service.client.job(job_id)
    assert (job.status, job.luthier.device_seconds) == (JobState.SUCCEEDED, 10.5)
    assert service.client.best(job_id).number == 1
    assert any("10 device-seconds" in message for message in service.messages(job_id))
    assert service.client.report(job_id).budget.ended == "the budget of 10 device-seconds is spent"


def test_a_waiting_trial_of_a_job_whose_budget_is_spent_is_never_leased(service: Service) -> None:
    workers = [FakeWorker(service.http, name=f"fake {n}", seconds=6.0) for n in range(2)]
    for each in workers:
        each.register()
    job_id = service.submit(search={"trials": 50, "confirmations": 0, "device_seconds": 10.0})
    first, second = workers[0].take(), workers[1].take()
    workers[0].work(first)
    workers[1].heartbeat(second)
    assert workers[0].lease() is None
    workers[1].finish(second, outcome="cancelled")
    wait_until(lambda: service.client.job(job_id).status.terminal)
    job = service.client.job(job_id)
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("user_error", "search")
    assert "10 device-seconds" in job.error.message


def test_a_job_ends_at_its_deadline(service: Service, worker: FakeWorker) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=6)
    job_id = service.submit(search={"trials": 5000, "confirmations": 0, "deadline": deadline.isoformat()})
    for _ in range(2):
        worker.work(worker.take())
    assignment = worker.take()
    wait_until(lambda: worker.heartbeat(assignment)["action"] == "stop")
    assert datetime.now(UTC) >= deadline
    worker.finish(assignment, outcome="cancelled")
    default = worker.take()
    assert (default.number, default.wrap_up_at) == (1, default.device_seconds), "it pauses, and is only scored"
    worker.work(default)
    wait_until(lambda: service.client.job(job_id).status.terminal)
    assert service.client.job(job_id).status is JobState.SUCCEEDED
    assert service.client.best(job_id).number == 1
    assert any("the deadline" in message for message in service.messages(job_id))


def test_a_job_ends_when_the_pins_leave_no_other_design(service: Service, worker: FakeWorker) -> None:
    pin = {
        "algorithm": ["sft"],
        "update": ["full"],
        "layers": [6],
        "kv_heads": [4],
        "epochs": [1],
        "batch_size": [8],
        "learning_rate_multiplier": [1.0, 2.0],
    }
    job_id = service.submit(search={"trials": 50, "confirmations": 0, "pin": pin})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    assert len(service.client.trials(job_id)) == 4
    assert any("all 4 designs" in message for message in service.messages(job_id))


def test_a_lost_worker_costs_nothing_but_time(service: Service, worker: FakeWorker) -> None:
    other = FakeWorker(service.http, name="other")
    other.register()
    job_id = service.submit(search={"trials": 2, "confirmations": 0, "finalists": 1})
    assignment = worker.take()
    _lose_workers(service)

    again = other.take()
    assert (again.trial_id, again.fence) == (assignment.trial_id, assignment.fence + 1)
    late = Finished(**worker.claim(assignment), outcome="failed", device_seconds=1, error="late")
    answer = service.http.post(f"/v1/trials/{assignment.trial_id}/finish", json=late.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "lease_lost")
    other.work(again)
    assert other.work_until_ended(service.client, job_id) == "succeeded"
    assert any(message.startswith("Trial 0 lost its worker") for message in service.messages(job_id))


def test_a_trial_that_loses_its_worker_three_times_has_failed(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    for _ in range(3):
        assert worker.take().number == 0
        _lose_workers(service)
    assert service.client.trials(job_id)[0].state is TrialState.FAILED
    assert "Trial 0 failed: its worker was lost 3 times" in service.messages(job_id)


def test_a_lost_trial_of_a_cancelled_job_is_not_waited_for(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    worker.take()
    service.client.cancel(job_id)
    _lose_workers(service)
    assert [trial.state for trial in service.client.trials(job_id)] == [TrialState.CANCELLED]


def test_a_worker_that_comes_back_under_its_name_gives_up_what_it_held(service: Service, worker: FakeWorker) -> None:
    service.submit(search={"trials": 2, "confirmations": 0})
    assignment = worker.take()
    back = FakeWorker(service.http, name=worker.name)
    back.register()
    assert back.id == worker.id
    again = back.take()
    assert (again.trial_id, again.fence) == (assignment.trial_id, assignment.fence + 1)


def test_a_trial_that_is_handed_back_goes_on_from_its_checkpoint(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    assignment = worker.take()
    manifests = [_save_checkpoint(worker, assignment, step) for step in (1, 2)]
    worker.finish(assignment, outcome="waiting")
    again = worker.take()
    assert (again.trial_id, again.checkpoint) == (assignment.trial_id, manifests[1])
    assert again.device_seconds == worker.seconds
    ended = [event.data for event in service.client.events(job_id) if event.data and "state" in event.data]
    assert any(data["state"] == "waiting" for data in ended)


def test_a_checkpoint_whose_blobs_were_not_uploaded_is_refused(service: Service, worker: FakeWorker) -> None:
    service.submit(search={"trials": 2, "confirmations": 0})
    assignment = worker.take()
    saved = CheckpointSaved(**worker.claim(assignment), manifest="0" * 64, blobs=(), stage=0, step=1)
    answer = worker.http.post(f"/v1/trials/{assignment.trial_id}/checkpoint", json=saved.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "blob_missing")


def test_a_restart_of_the_service_loses_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as before:
        before.add_model()
        worker = FakeWorker(before.http)
        worker.register()
        job_id = before.submit(search={"trials": 4, "confirmations": 0})
        worker.work(worker.take())
        assignment = worker.take()
        told = before.messages(job_id)
    with serving(tmp_path) as after:
        worker.http = after.http
        assert after.messages(job_id)[: len(told)] == told
        assert worker.heartbeat(assignment)["action"] == "continue"
        worker.work(assignment)
        assert worker.work_until_ended(after.client, job_id) == "succeeded"
        assert [trial.attempts for trial in after.client.trials(job_id)] == [1, 1, 1, 1]


def test_sending_a_finish_again_changes_nothing(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0})
    assignment = worker.take()
    report = {"outcome": "complete", "metrics": metrics(2.0), "test_metrics": metrics(2.0)}
    first = worker.finish(assignment, **report).json()
    told = service.messages(job_id)
    assert worker.finish(assignment, **report).json() == first
    assert service.messages(job_id) == told


def test_as_many_trials_are_open_as_there_are_workers(service: Service) -> None:
    workers = [FakeWorker(service.http, name=f"fake {n}") for n in range(3)]
    for each in workers:
        each.register()
    job_id = service.submit(search={"trials": 20, "confirmations": 0})
    held = [each.take() for each in workers]
    assert len({assignment.trial_id for assignment in held}) == 3
    assert len(service.client.trials(job_id)) == 3
    workers[0].work(held[0])
    assert len(service.client.trials(job_id)) == 4


def test_the_older_job_is_worked_on_first(service: Service, worker: FakeWorker) -> None:
    older, newer = service.submit(search={"trials": 2, "confirmations": 0}), service.submit(search={"trials": 2})
    wait_until(lambda: all(service.client.trials(job_id) for job_id in (older, newer)))
    leases = []
    for _ in range(4):
        assignment = worker.take()
        leases.append(assignment.job_id)
        worker.work(assignment)
    assert leases == [older, older, newer, newer]


# Weights


def test_only_finalists_and_the_default_keep_their_weights(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 6, "confirmations": 0, "finalists": 2})
    worker.work_until_ended(service.client, job_id)
    kept = {trial.number for trial in service.client.trials(job_id) if _artifacts(service, trial.id)}
    assert kept == {1, 4, 5}


def test_weights_that_are_let_go_are_deleted_but_for_what_others_share(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 4, "confirmations": 0, "finalists": 1})
    assignments = [worker.take()]
    worker.work(assignments[0])
    while len(assignments) < 3:
        assignments.append(worker.take())
        worker.work(assignments[-1])
    loser = f"weights of {assignments[2].trial_id}"
    worker.work_until_ended(service.client, job_id)

    ctx = service.context
    dropped, shared = worker.put(loser), worker.put("tokens")
    ctx.garbage.release({dropped, shared})
    assert ctx.garbage.sweep(ctx.database, ctx.blobs, datetime.now(UTC)) == set(), "spared: just uploaded"
    ctx.garbage.sweep(ctx.database, ctx.blobs, datetime.now(UTC) + GRACE)
    assert not ctx.blobs.exists(dropped)
    assert ctx.blobs.exists(shared)


def test_trials_of_several_stages_tell_what_each_but_the_last_has_brought(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(
        preferences(), search={"trials": 3, "confirmations": 0, "pin": {"algorithm": ["sft+dpo"], "update": ["full"]}}
    )
    for number in range(3):
        assignment = worker.take()
        worker.heartbeat(assignment, loss=2.5, valid_loss=1.5, valid_accuracy=0.7)
        [trial] = [trial for trial in service.client.trials(job_id) if trial.number == number]
        told = [(s.stage, s.algorithm, s.update, s.valid_loss, s.valid_accuracy) for s in trial.stages]
        assert told == ([(0, "sft", "full", 1.5, 0.7)] if len(assignment.design.stages) > 1 else [])
        worker.work(assignment)
    assert len(assignment.design.stages) == 2


def test_checkpoints_of_trials_that_have_ended_are_let_go(service: Service, worker: FakeWorker) -> None:
    service.submit(search={"trials": 2, "confirmations": 0})
    assignment = worker.take()
    older, newer = (_save_checkpoint(worker, assignment, step) for step in (1, 2))
    ctx = service.context
    later = datetime.now(UTC) + 2 * GRACE
    ctx.garbage.sweep(ctx.database, ctx.blobs, later)
    assert not ctx.blobs.exists(older)
    assert ctx.blobs.exists(newer)
    worker.work(assignment)
    ctx.garbage.sweep(ctx.database, ctx.blobs, later)
    assert not ctx.blobs.exists(newer)


def _lose_workers(service: Service) -> None:
    """Look after the jobs as if no worker had been heard of for the length of a lease."""
    tick(service.context, datetime.now(UTC) + timedelta(seconds=service.context.settings.lease_seconds + 1))


def _artifacts(service: Service, trial_id: str) -> list:
    with service.context.database.read() as c:
        return artifacts.of_trial(c, trial_id)


def _save_checkpoint(worker: FakeWorker, assignment: Assignment, step: int) -> str:
    state = worker.put(f"state at step {step}")
    manifest = worker.put(f'{{"state.safetensors": "{state}"}}')
    saved = CheckpointSaved(**worker.claim(assignment), manifest=manifest, blobs=(state,), stage=0, step=step)
    worker.post(f"/v1/trials/{assignment.trial_id}/checkpoint", saved)
    return manifest


@pytest.mark.parametrize(("base", "best"), [(9.0, True), (2.0, False)])
def test_only_a_trial_that_is_better_than_the_base_is_called_the_best_so_far(
    service: Service, worker: FakeWorker, base: float, best: bool
) -> None:
    worker.score = lambda assignment: metrics(base if assignment.number == 0 else 4.0)
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    assert any("Trial 1 is the best so far" in said for said in service.messages(job_id)) is best
