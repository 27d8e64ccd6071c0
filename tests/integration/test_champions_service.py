"""Champions and aliases: a winner takes over only where it beats the champion, on the same rows, beyond the noise."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from typer.testing import CliRunner

from luthier.api_types import Schedule, ScheduleRun
from luthier.cli import app
from luthier.errors import Conflict, NotFound
from luthier.schedule import RunState
from luthier.store import aliases, trials
from luthier.trial import JobState, Metrics
from luthier.worker_protocol import Assignment
from tests.integration.service_harness import FakeWorker, Service, metrics, serving, sums, wait_until

SMALL = {"trials": 2, "finalists": 1, "confirmations": 0}
BASE, CHAMPION = 0, -1
SAME, BETTER = 3.0, 2.0  # bits per byte; the untuned base has 3


@dataclass
class Judging(FakeWorker):
    """Scores each trial as the test says: by its number, or by the artifact that it is given."""

    tuned: float = BETTER
    champion: float = BETTER
    weights: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.score = self._score

    def _score(self, assignment: Assignment) -> Metrics:
        if assignment.weights is not None:
            self.weights.append(assignment.weights.files)
        values = {BASE: SAME, CHAMPION: self.champion}
        return metrics(values.get(assignment.number, self.tuned))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("champions")) as service:
        service.add_model()
        service.upload(sums(), "daily.jsonl")
        yield service


@pytest.fixture(scope="module")
def worker(service: Service) -> Judging:
    worker = Judging(service.http)
    worker.register()
    return worker


@pytest.fixture
def schedule(service: Service, request: pytest.FixtureRequest) -> Schedule:
    """A schedule for the test alone, which keeps an alias of the same name."""
    job = {"training_file": {"newest": "daily.jsonl"}, "search": SMALL}
    name = request.node.name.replace("test_", "")[:60]
    return service.client.create_schedule(name, "0 0 1 1 *", job, alias=name)


def run(
    service: Service, worker: Judging, schedule: Schedule, *, tuned: float, champion: float = BETTER
) -> ScheduleRun:
    """One run to its end, in which the trained trials and the champion have such scores."""
    worker.tuned, worker.champion = tuned, champion
    begun = service.client.run_schedule(schedule.id)
    assert begun.job is not None, begun.reason
    assert worker.work_until_ended(service.client, begun.job) == "succeeded"
    ended = service.client.schedule_runs(schedule.id)[0]
    assert (ended.id, ended.state) == (begun.id, RunState.SUCCEEDED)
    return ended


def model_of(service: Service, ended: ScheduleRun) -> str:
    assert ended.job is not None
    model = service.client.job(ended.job).fine_tuned_model
    assert model is not None
    return model


def test_the_first_winner_has_to_beat_the_untuned_base(service: Service, worker: Judging, schedule: Schedule) -> None:
    refused = run(service, worker, schedule, tuned=SAME)
    assert refused.contest is not None
    assert (refused.contest.promoted, refused.contest.champion) == (False, "the untuned base tiny-chat")
    assert not refused.contest.promoted
    assert "not significantly different" in refused.contest.why
    with pytest.raises(NotFound, match="Alias"):
        service.client.alias(schedule.name)

    won = run(service, worker, schedule, tuned=BETTER)
    assert won.contest is not None
    assert won.contest.promoted
    alias = service.client.alias(schedule.name)
    assert (alias.id, alias.model, alias.job) == (f"alias/{schedule.name}", model_of(service, won), won.job)
    assert alias.versions[0].origin == "schedule"
    assert alias.versions[0].contest == won.contest
    assert worker.weights == [], "there was no champion to score"


def test_a_winner_takes_over_only_if_it_beats_the_champion(
    service: Service, worker: Judging, schedule: Schedule
) -> None:
    first = run(service, worker, schedule, tuned=BETTER)
    kept = run(service, worker, schedule, tuned=BETTER, champion=BETTER)
    assert kept.contest is not None
    assert (kept.contest.promoted, kept.contest.champion) == (False, model_of(service, first))
    assert not kept.contest.promoted
    assert "not significantly different" in kept.contest.why
    assert service.client.alias(schedule.name).model == model_of(service, first)
    better = run(service, worker, schedule, tuned=BETTER, champion=SAME)
    contest = better.contest
    assert contest is not None
    assert contest.promoted
    assert contest.difference == pytest.approx(BETTER - SAME)
    assert contest.low is not None
    assert contest.high is not None
    assert contest.low <= contest.difference <= contest.high < 0
    assert contest.rows == 6
    assert service.client.alias(schedule.name).model == model_of(service, better)
    assert better.job is not None
    messages = service.messages(better.job)
    assert any("is now scored on the same test rows" in message for message in messages)
    assert any(message.startswith(f"alias/{schedule.name} ") and contest.why in message for message in messages)


def test_the_champion_is_scored_by_its_own_weights_and_unknown_to_the_search(
    service: Service, worker: Judging, schedule: Schedule
) -> None:
    first = run(service, worker, schedule, tuned=BETTER)
    assert first.job is not None
    best = service.client.best(first.job)
    worker.weights.clear()
    second = run(service, worker, schedule, tuned=BETTER, champion=1.0)
    merged = next(artifact.files for artifact in best.artifacts if artifact.kind == "merged")
    assert worker.weights
    assert all(files == merged for files in worker.weights)
    assert second.job is not None
    assert [trial.number for trial in service.client.trials(second.job)] == [0, 1]
    assert service.client.best(second.job).number == 1, "the champion is better, and no candidate"
    assert service.client.report(second.job).winner is not None
    with service.context.database.read() as c:
        entered = trials.champion(c, second.job)
        assert entered is not None
        assert entered.weights_of == best.trial
        assert all(measured.job_id != second.job for measured in trials.measured(c, 100)), "it sets no prices"


def test_a_champion_that_cannot_be_scored_stays(service: Service, worker: Judging, schedule: Schedule) -> None:
    first = run(service, worker, schedule, tuned=BETTER)
    begun = service.client.run_schedule(schedule.id)
    assert begun.job is not None
    champion = until_champion(service, worker, begun.job)
    worker.finish(champion, outcome="failed", error="out of luck")
    wait_until(lambda: service.client.job(begun.job or "").status is JobState.SUCCEEDED)
    contest = service.client.schedule_runs(schedule.id)[0].contest
    assert contest is not None
    assert not contest.promoted
    assert "failed: out of luck" in contest.why
    assert service.client.alias(schedule.name).model == model_of(service, first)


def test_an_alias_that_changes_meanwhile_is_left_alone(service: Service, worker: Judging, schedule: Schedule) -> None:
    first = run(service, worker, schedule, tuned=BETTER)
    second = run(service, worker, schedule, tuned=BETTER, champion=SAME)
    begun = service.client.run_schedule(schedule.id)
    assert begun.job is not None
    worker.tuned, worker.champion = 1.0, SAME
    champion = until_champion(service, worker, begun.job)
    assert service.client.roll_back(schedule.name).model == model_of(service, first) != model_of(service, second)
    worker.work(champion)
    wait_until(lambda: service.client.job(begun.job or "").status is JobState.SUCCEEDED)
    contest = service.client.schedule_runs(schedule.id)[0].contest
    assert contest is not None
    assert "the alias was changed" in contest.why
    assert service.client.alias(schedule.name).model == model_of(service, first)


def test_a_job_that_is_cancelled_takes_the_champion_with_it(
    service: Service, worker: Judging, schedule: Schedule
) -> None:
    run(service, worker, schedule, tuned=BETTER)
    begun = service.client.run_schedule(schedule.id)
    assert begun.job is not None
    champion = until_champion(service, worker, begun.job)
    service.client.cancel(begun.job)
    assert worker.heartbeat(champion)["action"] == "stop"
    worker.finish(champion, outcome="cancelled")
    assert len(service.client.alias(schedule.name).versions) == 1


def test_a_spent_budget_is_no_reason_not_to_score_the_champion(
    service: Service, worker: Judging, schedule: Schedule
) -> None:
    run(service, worker, schedule, tuned=BETTER)
    job = schedule.job | {"search": SMALL | {"device_seconds": 2.0}}
    service.client.change_schedule(schedule.id, job=job)
    won = run(service, worker, schedule, tuned=BETTER, champion=SAME)
    assert won.contest is not None
    assert won.contest.promoted


def until_champion(service: Service, worker: Judging, job_id: str) -> Assignment:
    """Work until the champion of the job is leased."""
    while (assignment := worker.take()).weights is None:
        worker.work(assignment)
    assert assignment.job_id == job_id
    return assignment


def test_rolling_back_leads_from_each_model_to_the_one_before(service: Service, worker: Judging) -> None:
    made = []
    for _ in range(3):
        job_id = service.submit(search=SMALL)
        worker.work_until_ended(service.client, job_id)
        made.append(service.client.job(job_id).fine_tuned_model or "")
        service.client.set_alias("steps", made[-1])
    first, second, third = made
    assert service.client.roll_back("steps").model == second
    assert service.client.roll_back("steps").model == first
    with pytest.raises(Conflict, match="alias/steps.*" + first):
        service.client.roll_back("steps")
    service.client.set_alias("steps", third)
    assert service.client.roll_back("steps").model == first, "what was rolled back from is not come back to"
    origins = [version.origin for version in service.client.alias("steps").versions]
    assert origins == ["rollback", "user", "rollback", "rollback", "user", "user", "user"]
    with service.context.database.read() as c:
        assert aliases.resolve(c, "alias/steps") == first
        assert aliases.resolve(c, "tiny-chat") == "tiny-chat"

    def command(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["aliases", *arguments, "--server", service.url], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.stdout

    assert command("set", "steps", second) == f"alias/steps points to {second}.\n"
    assert command("rollback", "steps") == f"alias/steps points to {first}.\n"
    assert "alias/steps" in command("list")
    assert len(json.loads(command("history", "steps", "--json"))) == 9
    assert second in command("history", "steps")
    assert "Deleted" in command("remove", "steps")
    assert "steps" not in {alias.name for alias in service.client.aliases()}


def test_only_fine_tuned_models_have_aliases(service: Service) -> None:
    with pytest.raises(NotFound, match="'tiny-chat'"):
        service.client.set_alias("base", "tiny-chat")
    with pytest.raises(NotFound, match="Alias"):
        service.client.roll_back("nothing")
