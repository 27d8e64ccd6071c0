"""How the service spends a job's budget: trials pause at rungs, the best go on, the finalists are confirmed."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from luthier.api_types import Trial
from luthier.design import Design
from luthier.store import trials as store
from luthier.trial import RUNGS, Metrics, TrialState
from luthier.worker_protocol import Assignment, CheckpointSaved, Keep, RungReached
from service.blob_gc import GRACE
from service.jobs import costs, leases
from service.jobs.reconcile import tick
from tests.integration.service_harness import FakeWorker, Service, metrics, serving, wait_until

pytest_plugins = ("tests.integration.service_fixtures",)

WIDE = {"trials": 14, "finalists": 1, "confirmations": 0}
OF_FIXED_LENGTH = {**WIDE, "pin": {"schedule": ["cosine"]}}


def by_order(*scores: float) -> "Scores":
    return Scores(dict(enumerate(scores)))


class Scores:
    """A judge that finds what it was told to, by the trial's number; the base is bad and the default is middling."""

    def __init__(self, scores: dict[int, float]) -> None:
        self.scores = {0: 9.0, 1: 5.0, **scores}

    def __call__(self, assignment: Assignment) -> object:
        return metrics(self.scores.get(assignment.number, 5.0))


def trial(service: Service, job_id: str, number: int) -> Trial:
    return service.client.trials(job_id)[number]


def take(worker: FakeWorker, number: int) -> Assignment:
    assignment = worker.take()
    assert assignment.number == number
    return assignment


def save(worker: FakeWorker, assignment: Assignment) -> str:
    state = worker.put(f"state of {assignment.trial_id} under {assignment.fence}")
    manifest = worker.put(f'{{"state.safetensors": "{state}"}}')
    saved = CheckpointSaved(**worker.claim(assignment), manifest=manifest, blobs=(state,), stage=0, step=2)
    worker.post(f"/v1/trials/{assignment.trial_id}/checkpoint", saved)
    return manifest


def baselines(worker: FakeWorker) -> str:
    """Score the untuned base, and bring the default to its first rung; the default's checkpoint."""
    worker.work(take(worker, 0))
    return pause(worker, 1)


def pause(worker: FakeWorker, number: int) -> str:
    """Bring a trial to its first rung, where it pauses; its checkpoint."""
    assignment = take(worker, number)
    assert worker.reach(assignment, 0).action == "pause"
    manifest = save(worker, assignment)
    worker.finish(assignment, outcome="waiting")
    return manifest


@pytest.mark.parametrize(("search", "expected"), [(WIDE, [None, 0, 0, 0]), (OF_FIXED_LENGTH, [None, None, 0, 0])])
def test_the_default_sets_out_for_the_first_rung_like_designs_if_it_can_end_at_any_step(
    search: dict[str, object], expected: list[int | None], service: Service, worker: FakeWorker
) -> None:
    service.submit(search=search)
    goals = []
    for _ in range(4):
        assignment = worker.take()
        goals.append(assignment.goal)
        worker.work(assignment)
    assert goals == expected


def test_a_trial_pauses_at_its_goal_and_says_how_it_stands(service: Service, worker: FakeWorker) -> None:
    worker.score = by_order(9.0, 5.0, 4.0)
    job_id = service.submit(search=WIDE)
    baselines(worker)
    pause(worker, 2)
    paused = trial(service, job_id, 2)
    assert (paused.state, paused.paused, paused.rung, paused.goal) == (TrialState.WAITING, True, 0, 0)
    assert (paused.measured, paused.metrics, paused.attempts) == ((metrics(4.0),), None, 0)
    event, of_default = [one for one in service.client.events(job_id) if (one.data or {}).get("state") == "paused"]
    assert ((of_default.data or {})["number"], (event.data or {})["number"]) == (1, 2)
    assert "rung 1" in event.message
    assert "4 bits per byte" in event.message
    progress = service.client.job(job_id).luthier
    assert (progress.trials_done, progress.trials_paused, progress.trials_total) == (3, 2, 14)


def test_a_trial_among_the_best_third_goes_on_and_its_goal_is_raised(service: Service, worker: FakeWorker) -> None:
    worker.score = by_order(9.0, 5.0, 4.0, 3.0)
    job_id = service.submit(search=WIDE)
    baselines(worker)
    pause(worker, 2)
    assignment = take(worker, 3)
    verdict = worker.reach(assignment, 0)
    assert (verdict.action, verdict.goal) == ("continue", 1)
    assert trial(service, job_id, 3).goal == 1
    assert sum(message.startswith("Trial 3 is in the top third at rung 1") for message in service.messages(job_id)) == 1
    again = worker.reach(assignment, 0)
    assert again == verdict, "said again, it is answered again"
    assert sum("in the top third" in message for message in service.messages(job_id)) == 1
    assert worker.reach(assignment, 1).action == "pause", "alone at the second rung"


def test_a_paused_trial_is_promoted_once_worse_ones_have_come_and_goes_on_from_its_checkpoint(
    service: Service, worker: FakeWorker
) -> None:
    worker.score = by_order(9.0, 5.0, 3.0, 4.0)
    job_id = service.submit(search=WIDE)
    baselines(worker)
    manifest = pause(worker, 2)
    pause(worker, 3)
    other = FakeWorker(service.http, name="other")
    other.register()
    promoted = take(other, 2)
    assert (promoted.goal, promoted.checkpoint, promoted.fence) == (1, manifest, 2)
    assert any(
        message.startswith("Trial 2") and "promoted to rung 2" in message for message in service.messages(job_id)
    )
    assert trial(service, job_id, 2).paused is False


def test_a_rung_below_the_goal_and_one_without_a_goal_ask_for_nothing(service: Service, worker: FakeWorker) -> None:
    worker.score = by_order(9.0, 5.0, 3.0, 4.0, 4.5)
    service.submit(search=OF_FIXED_LENGTH)
    worker.work(worker.take())
    default = take(worker, 1)
    assert [worker.reach(default, rung).action for rung in range(len(RUNGS))] == ["continue", "continue"]
    worker.finish(default, outcome="complete", metrics=metrics(5.0))
    pause(worker, 2)
    pause(worker, 3)
    lost = take(worker, 2)
    assert lost.goal == 1, "three were scored, the default among them"
    verdict = worker.reach(lost, 0)
    assert (verdict.action, verdict.goal) == ("continue", 1)


def test_a_rung_without_the_metric_that_decides_is_refused(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={**WIDE, "objective": "reward"}, task={"grader": {"type": "string_check"}})
    baselines(worker)
    assignment = take(worker, 2)
    report = RungReached(
        **worker.claim(assignment), rung=0, share=RUNGS[0], stage=0, step=1, metrics=metrics(1.0, reward=None)
    )
    answer = service.http.post(f"/v1/trials/{assignment.trial_id}/rung", json=report.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metrics.reward")
    assert trial(service, job_id, 2).measured == ()


def test_a_late_rung_of_a_lost_lease_is_refused(service: Service, worker: FakeWorker) -> None:
    service.submit(search=WIDE)
    baselines(worker)
    assignment = take(worker, 2)
    tick(service.context, datetime.now(UTC) + timedelta(seconds=service.context.settings.lease_seconds + 1))
    report = RungReached(**worker.claim(assignment), rung=0, share=RUNGS[0], stage=0, step=1, metrics=metrics(1.0))
    answer = service.http.post(f"/v1/trials/{assignment.trial_id}/rung", json=report.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "lease_lost")


def test_a_worker_lost_between_the_verdict_and_the_pause_leaves_a_paused_trial(
    service: Service, worker: FakeWorker
) -> None:
    job_id = service.submit(search=WIDE)
    baselines(worker)
    assert worker.reach(take(worker, 2), 0).action == "pause"
    tick(service.context, datetime.now(UTC) + timedelta(seconds=service.context.settings.lease_seconds + 1))
    assert trial(service, job_id, 2).paused
    assert take(worker, 3).goal == 0, "the next design, and not the one that pauses"


def test_a_whole_job_promotes_its_best_and_prunes_the_others(service: Service, worker: FakeWorker) -> None:
    scores = {number: 4.0 - (number * 5 % 12) / 10 for number in range(2, 14)}
    worker.score = Scores(scores)
    job_id = service.submit(search={**WIDE, "finalists": 2})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    found = service.client.trials(job_id)
    assert len(found) == 14
    states = Counter(trial.state for trial in found)
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    best_two = sorted(scores, key=scores.__getitem__)[:2]
    assert {0, 1, *best_two} <= {trial.number for trial in found if trial.state is TrialState.COMPLETE}
    assert service.client.best(job_id).number == best_two[0]
    assert states[TrialState.PRUNED] >= 6
    progress = service.client.job(job_id).luthier
    assert (progress.trials_done, progress.trials_paused, progress.confirmations_total) == (14, 0, 0)
    for one in found[2:]:
        assert len(one.measured) >= 1
        assert one.rung == len(one.measured) - 1


def test_the_hopeless_are_given_up_while_the_job_runs_and_their_checkpoints_dropped(
    service: Service, worker: FakeWorker
) -> None:
    worker.score = Scores({number: 3.0 + number / 10 for number in range(2, 14)})  # each is worse than those before
    job_id = service.submit(search=WIDE)
    manifests = {1: baselines(worker)}

    def given_up() -> list[int]:
        return [one.number for one in service.client.trials(job_id) if one.state is TrialState.PRUNED]

    while not given_up():
        assignment = worker.take()
        on = worker.climb(assignment)
        manifests[assignment.number] = save(worker, assignment)
        if on:
            worker.finish(assignment, outcome="complete", metrics=worker.score(assignment))
        else:
            worker.finish(assignment, outcome="waiting")
    assert service.client.job(job_id).status == "running"
    gone = given_up()
    stopped = " ".join(message for message in service.messages(job_id) if "not in the top third" in message)
    assert {int(number) for number in re.findall(r"\b\d+(?=,| stopped)", stopped)} == set(gone)
    ctx = service.context
    ctx.garbage.sweep(ctx.database, ctx.blobs, datetime.now(UTC) + 2 * GRACE)
    assert not any(ctx.blobs.exists(manifests[number]) for number in gone)
    paused = [one.number for one in service.client.trials(job_id) if one.paused]
    assert 1 in paused, "the default is trained to its end, though it is the worst"
    assert len(paused) > 1
    assert all(ctx.blobs.exists(manifests[number]) for number in paused)
    told = service.messages(job_id)
    tick(ctx, datetime.now(UTC))
    assert service.messages(job_id) == told, "said once"


def test_when_the_job_ends_no_checkpoint_is_left(service: Service, worker: FakeWorker) -> None:
    worker.score = by_order(9.0, 5.0, 3.0, 4.0, 4.5)
    job_id = service.submit(search={**WIDE, "trials": 5})
    kept = [baselines(worker), pause(worker, 2), pause(worker, 3)]
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    states = [trial(service, job_id, n).state.value for n in (1, 2, 3, 4)]
    assert states == ["complete", "complete", "pruned", "pruned"]
    ctx = service.context
    ctx.garbage.sweep(ctx.database, ctx.blobs, datetime.now(UTC) + 2 * GRACE)
    assert not any(ctx.blobs.exists(manifest) for manifest in kept)
    with ctx.database.read() as c:
        assert {row.checkpoint for row in store.of_job(c, job_id)} == {None}


def test_cancelling_prunes_what_pauses_and_cancels_what_never_ran(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search=WIDE)
    baselines(worker)
    pause(worker, 2)
    wait_until(lambda: len(service.client.trials(job_id)) == 4)
    service.client.cancel(job_id)
    assert [one.state.value for one in service.client.trials(job_id)] == ["complete", "pruned", "pruned", "cancelled"]


def test_a_spent_budget_prunes_what_pauses_and_the_best_so_far_wins(service: Service, worker: FakeWorker) -> None:
    worker.score = by_order(9.0, 5.0, 3.0)
    job_id = service.submit(search={**OF_FIXED_LENGTH, "device_seconds": 10.0})
    for number in (0, 1):
        worker.work(take(worker, number))
    pause(worker, 2)
    running = take(worker, 3)
    assert worker.heartbeat(running, seconds=8.0)["action"] == "stop"
    worker.finish(running, outcome="cancelled", device_seconds=8.0)
    wait_until(lambda: service.client.job(job_id).status.terminal)
    assert service.client.job(job_id).status == "succeeded"
    assert service.client.best(job_id).number == 1
    assert [trial(service, job_id, n).state.value for n in (2, 3)] == ["pruned", "cancelled"]


def over_budget(worker: FakeWorker, assignment: Assignment, seconds: float = 9.0) -> None:
    """A trial that uses more than the budget at once is stopped."""
    assert worker.heartbeat(assignment, seconds=seconds)["action"] == "stop"
    worker.finish(assignment, outcome="cancelled", device_seconds=seconds)


def test_the_default_and_the_best_design_are_scored_if_the_budget_is_spent_while_they_pause(
    service: Service, worker: FakeWorker
) -> None:
    worker.score = by_order(9.0, 5.0, 3.0)
    job_id = service.submit(search={**WIDE, "device_seconds": 10.0})
    manifests = {1: baselines(worker), 2: pause(worker, 2)}
    over_budget(worker, take(worker, 3))
    for number in manifests:
        resumed = take(worker, number)
        assert (resumed.goal, resumed.checkpoint) == (None, manifests[number])
        assert resumed.wrap_up_at == resumed.device_seconds == 1.0, "it does not train on until its first heartbeat"
        directive = worker.heartbeat(resumed)
        assert (directive["action"], directive["reason"]) == ("wrap_up", None)
        worker.work(resumed)
    wait_until(lambda: service.client.job(job_id).status.terminal)
    job = service.client.job(job_id)
    assert (job.status, job.luthier.device_seconds) == ("succeeded", 12.0)
    best = service.client.best(job_id)
    assert best.number == 2
    assert best.default_metrics is not None
    assert best.artifacts
    assert [trial(service, job_id, n).state.value for n in range(4)] == ["complete"] * 3 + ["cancelled"]
    assert service.client.report(job_id).budget.ended == "the budget of 10 device-seconds is spent"
    resumed_for = [message for message in service.messages(job_id) if "only to be scored" in message]
    assert [message.split(",")[0] for message in resumed_for] == ["Trial 1", "Trial 2"]


def test_a_running_design_that_is_the_best_is_scored_and_not_stopped_if_no_other_has_a_result(
    service: Service, worker: FakeWorker
) -> None:
    worker.score = by_order(9.0, 5.0, 3.0, 4.0)
    job_id = service.submit(search={**WIDE, "device_seconds": 10.0})
    baselines(worker)
    pause(worker, 2)
    pause(worker, 3)
    promoted = take(worker, 2)
    assert promoted.goal == 1
    assert worker.heartbeat(promoted, seconds=9.0)["action"] == "wrap_up"
    other = FakeWorker(service.http, name="other", score=worker.score)
    other.register()
    other.work(take(other, 1))
    worker.finish(promoted, outcome="complete", device_seconds=9.0, metrics=metrics(3.0))
    wait_until(lambda: service.client.job(job_id).status.terminal)
    assert service.client.best(job_id).number == 2
    assert [trial(service, job_id, n).state.value for n in range(4)] == ["complete"] * 3 + ["pruned"]


def test_no_design_is_scored_past_the_budget_if_another_has_a_result(service: Service, worker: FakeWorker) -> None:
    worker.score = by_order(9.0, 5.0, 4.0, 3.0)
    job_id = service.submit(search={**WIDE, "device_seconds": 10.0})
    baselines(worker)
    early = take(worker, 2)
    worker.finish(early, outcome="complete", metrics=metrics(4.0))
    pause(worker, 3)
    over_budget(worker, take(worker, 4))
    worker.work(take(worker, 1))
    wait_until(lambda: service.client.job(job_id).status.terminal)
    assert [trial(service, job_id, n).state.value for n in range(5)] == ["complete"] * 3 + ["pruned", "cancelled"]


def test_a_trial_that_fails_when_resumed_past_the_budget_is_not_replaced(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={**WIDE, "device_seconds": 10.0})
    baselines(worker)
    pause(worker, 2)
    over_budget(worker, take(worker, 3))
    worker.finish(take(worker, 1), outcome="failed", error="out of luck")
    worker.finish(take(worker, 2), outcome="failed", error="out of luck")
    wait_until(lambda: service.client.job(job_id).status.terminal)
    job = service.client.job(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "trial_failed"


def test_a_worker_that_asks_after_the_deadline_is_given_what_still_gets_a_result(
    service: Service, worker: FakeWorker
) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=1)
    job_id = service.submit(search={**WIDE, "deadline": deadline.isoformat()})
    baselines(worker)
    wait_until(lambda: len(service.client.trials(job_id)) == 3)
    found = leases.acquire(service.context, worker.id, deadline + timedelta(seconds=1))
    assert found is not None
    assert (found.number, found.goal, found.wrap_up_at) == (1, None, found.device_seconds)
    assert trial(service, job_id, 2).state is TrialState.CANCELLED


def test_of_a_budget_enough_is_kept_to_confirm_the_best(service: Service, worker: FakeWorker) -> None:
    """Two device-seconds for each whole trial, three finalists and the default, two seeds: 16, less than a third."""
    worker.seconds = 2.0
    job_id = service.submit(search={"trials": 500, "device_seconds": 60.0})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    found = service.client.trials(job_id)
    assert Counter(one.origin for one in found)["confirmation"] == 8
    assert all(one.state is TrialState.COMPLETE for one in found[-8:])
    assert len(found) < 40


# Confirmations


def test_the_finalists_and_the_default_are_trained_from_other_seeds(service: Service, worker: FakeWorker) -> None:
    worker.score = by_order(9.0, 5.0, 3.0, 4.0, 3.3, 5.3, 3.6, 5.6)
    job_id = service.submit(search={"trials": 4, "finalists": 1, "confirmations": 2}, seed=70)
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    found = service.client.trials(job_id)
    assert [(one.confirms, one.seed, one.origin) for one in found[4:]] == [
        (2, 71, "confirmation"),
        (1, 71, "confirmation"),
        (2, 72, "confirmation"),
        (1, 72, "confirmation"),
    ], "each split of the few rows is done before the next"
    for one in found[4:]:
        assert one.confirms is not None
        assert one.design == found[one.confirms].design
        assert (one.goal, one.state) == (None, TrialState.COMPLETE)
        assert one.test_metrics is not None, "the test rows are scored for each seed"
    assert {one.seed for one in found[:4]} == {70}
    progress = service.client.job(job_id).luthier
    assert (progress.trials_done, progress.trials_total) == (4, 4)
    assert (progress.confirmations_done, progress.confirmations_total) == (4, 4)
    assert any(message.startswith("Trial 4 repeats the design of trial 2") for message in service.messages(job_id))
    best = service.client.best(job_id)
    assert best.default_metrics is not None
    assert best.test_metrics is not None
    assert (best.number, best.seeds, best.default_seeds) == (2, 3, 3)
    assert best.metrics.bits_per_byte == pytest.approx(3.3), "the mean decides, so it is what is shown"
    assert best.default_metrics.bits_per_byte == pytest.approx(5.3)
    assert best.test_metrics.bits_per_byte == pytest.approx(3.3)
    assert progress.best is not None
    assert (progress.best.metrics, progress.best.seeds) == (best.metrics, 3)
    finished = next(message for message in service.messages(job_id) if message.startswith("Finished"))
    assert "trial 2, 3.3 bits per byte" in finished
    assert "(n=3)" in finished


def test_of_a_confirmation_the_test_rows_are_scored_and_the_weights_not_kept(
    service: Service, worker: FakeWorker
) -> None:
    service.submit(search={"trials": 2, "confirmations": 1})
    for number in (0, 1):
        worker.work(take(worker, number))
    again = take(worker, 2)
    report = {**worker.claim(again), "metrics": metrics(2.0).model_dump(), "device_seconds": 1.0}
    answer = worker.http.post(f"/v1/trials/{again.trial_id}/judged", json=report)
    assert Keep.model_validate(answer.json()) == Keep(keep=False, test=True)


@pytest.mark.parametrize("luck", [0.0, 2.0])
def test_whoever_wins_after_confirmations_has_weights(service: Service, worker: FakeWorker, luck: float) -> None:
    """The single runs of the finalists were lucky: others have better ones than their means, but none that is kept."""
    worker.score = lambda assignment: metrics(
        9.0 if not assignment.design.stages else 3.0 + assignment.number / 100 + luck * (assignment.number > 8)
    )
    job_id = service.submit(search={"trials": 9, "finalists": 2, "confirmations": 1})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    found = service.client.trials(job_id)
    best = service.client.best(job_id)
    assert {one.confirms for one in found if one.confirms is not None} == {1, 2, 3}
    assert best.number in {1, 2, 3}
    assert best.artifacts
    assert best.test_metrics is not None


def test_a_lucky_finalist_is_overtaken_once_repeated(service: Service, worker: FakeWorker) -> None:
    scores, lucky = {0: 9.0, 1: 5.0, 2: 3.0, 3: 3.1}, set[str]()

    def score(assignment: Assignment) -> Metrics:
        if assignment.number == 2:
            lucky.add(assignment.design.digest())
        return metrics(scores.get(assignment.number, 4.0 if assignment.design.digest() in lucky else 3.1))

    worker.score = score
    job_id = service.submit(search={"trials": 4, "finalists": 2, "confirmations": 2})
    worker.work_until_ended(service.client, job_id)
    assert service.client.best(job_id).winner == 3
    assert service.client.best(job_id, trial="3").artifacts


# Refusals


def test_a_design_that_cannot_run_is_noted_and_never_launched(
    service: Service, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def refusal(design: Design) -> str | None:
        if design.stages and len(refused) < 2 and design.stages[0].update.kind != "lora":
            refused.append(design.digest())
            return "it needs 9.1 GiB, the largest worker has 8.0"
        return None

    monkeypatch.setattr(costs, "refusal", lambda ctx, job, rows, now: refusal)
    job_id = service.submit(search={"trials": 5, "confirmations": 0})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    found = service.client.trials(job_id)
    gone = [one for one in found if one.state is TrialState.INFEASIBLE]
    assert len(gone) == 2
    assert {(one.error, one.started_at, one.device_seconds) for one in gone} == {
        ("it needs 9.1 GiB, the largest worker has 8.0", None, 0.0)
    }
    assert len(found) == 5 + 2, "what is refused is no trial of the budget"
    progress = service.client.job(job_id).luthier
    assert (progress.trials_done, progress.trials_total) == (5, 5)
    assert sum("was not started: it needs 9.1 GiB" in message for message in service.messages(job_id)) == 2
    assert not {one.id for one in gone} & {assignment.trial_id for assignment in worker.done}


# No memory between ticks


def test_a_restart_finds_the_trials_that_pause_and_goes_on_with_them(tmp_path: Path) -> None:
    with serving(tmp_path) as before:
        before.add_model()
        worker = FakeWorker(before.http, score=by_order(9.0, 5.0, 3.0, 4.0, 4.5))
        worker.register()
        job_id = before.submit(search={**WIDE, "trials": 5})
        baselines(worker)
        manifest = pause(worker, 2)
        last = take(worker, 3)
        assert worker.reach(last, 0).action == "pause"
        save(worker, last)
    with serving(tmp_path) as after:
        worker.http = after.http
        worker.finish(last, outcome="waiting")
        promoted = take(worker, 2)
        assert (promoted.goal, promoted.checkpoint) == (1, manifest)
        assert worker.reach(promoted, 1).action == "pause"
        worker.finish(promoted, outcome="waiting")
        assert worker.work_until_ended(after.client, job_id) == "succeeded"
        assert after.client.best(job_id).number == 2
        assert [one.attempts for one in after.client.trials(job_id)] == [1, 1, 1, 0, 0]
