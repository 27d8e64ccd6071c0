"""Few validation rows: each repeat of the finalists and of the default trains on another split of the rows."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest

from luthier.api_types import Trial
from luthier.metrics import mean_metrics
from luthier.store import artifacts, jobs
from luthier.store.rows import JobRecord
from luthier.trial import Metrics
from luthier.worker_protocol import Artifact, Assignment
from tests.integration.service_harness import FakeWorker, Service, metrics, row_scores, serving, sums

pytest_plugins = ("tests.integration.service_fixtures",)

SEARCH: dict[str, Any] = {
    "trials": 5,
    "finalists": 2,
    "confirmations": 2,
    "early_finish": False,
    "memory": False,
}
HARDER = (0.0, 0.9, 0.3)  # what each split adds to the score of every design
QUALITY = {0: 3.0, 1: 2.5, 2: 2.2, 3: 2.0, 4: 2.1}  # of each design, by the number of its first trial
REPEATED_TWICE = 2 * 3  # two finalists and the default


@dataclass
class Splitter(FakeWorker):
    """Scores a trial by its design and by the split that it is given, as rows that are harder would."""

    job: JobRecord | None = None
    quality: Callable[[int], float] = QUALITY.__getitem__
    first: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.score = self.scored

    def scored(self, assignment: Assignment) -> Metrics:
        return metrics(self.quality(self.design_of(assignment)) + HARDER[self.split_of(assignment)])

    def split_of(self, assignment: Assignment) -> int:
        assert self.job is not None
        rows = [self.job.judge.validation, *(split.validation for split in self.job.resplits)]
        return rows.index(assignment.judge.validation)

    def design_of(self, assignment: Assignment) -> int:
        return self.first.setdefault(assignment.design.digest(), assignment.number)

    def finish(self, assignment: Assignment, **report: Any) -> httpx.Response:
        if report.get("test_metrics") is not None:  # the test rows are the same for all
            tested = metrics(self.quality(self.design_of(assignment)))
            report |= {"test_metrics": tested, "test_scores": row_scores(tested)}
        return super().finish(assignment, **report)

    def export(self, assignment: Assignment) -> tuple[Artifact, ...]:
        card = {"README.md": self.put("# a card\n")}
        return tuple(one.model_copy(update={"files": one.files | card}) for one in super().export(assignment))


@dataclass(frozen=True)
class Done:
    service: Service
    job: JobRecord
    worker: Splitter

    @property
    def trials(self) -> list[Trial]:
        return self.service.client.trials(self.job.id)

    def page(self, path: str = "") -> str:
        answer = self.service.http.get(f"/jobs/{self.job.id}{path}")
        assert answer.status_code == 200, answer.text
        return answer.text


def record(service: Service, job_id: str) -> JobRecord:
    with service.context.database.read() as c:
        return jobs.get(c, job_id)


def rows(service: Service, digest: str) -> list[dict[str, Any]]:
    with service.context.blobs.open(digest) as stream:
        return [json.loads(line) for line in stream]


def questions(found: list[dict[str, Any]]) -> set[str]:
    return {row["prompt"] for row in found}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("splits")) as service:
        service.add_model()
        job_id = service.submit(sums(), search=SEARCH, suffix="splits")
        worker = Splitter(service.http, job=record(service, job_id))
        worker.register()
        assert worker.work_until_ended(service.client, job_id) == "succeeded"
        yield Done(service, record(service, job_id), worker)


def test_creation_makes_a_split_for_each_repeat_and_leaves_the_test_rows_out_of_all(done: Done) -> None:
    job = done.job
    test = questions(rows(done.service, job.judge.test))
    train, validation = (questions(rows(done.service, digest)) for digest in (job.train, job.judge.validation))
    assert (len(train), len(validation), len(test)) == (36, 12, 12)
    assert len(job.resplits) == 2
    parts = [validation]
    for split in job.resplits:
        fitted, held_out = (questions(rows(done.service, digest)) for digest in (split.train, split.validation))
        assert (len(fitted), len(held_out)) == (36, 12)
        assert fitted | held_out == train | validation
        assert not (fitted | held_out) & test
        parts.append(held_out)
    assert len(set.union(*parts)) == 36, "no row is validated on twice"


def test_a_repeat_trains_and_is_validated_on_its_own_split_and_all_others_on_the_first(done: Done) -> None:
    job = done.job
    splits = {0: (job.train, job.judge.validation)}
    splits |= {k: (split.train, split.validation) for k, split in enumerate(job.resplits, start=1)}
    for assignment in done.worker.done:
        repeat = assignment.seed - job.seed
        assert (assignment.train, assignment.judge.validation) == splits[repeat]
        assert assignment.judge == job.judge.model_copy(update={"validation": splits[repeat][1]})
    repeats = [assignment for assignment in done.worker.done if assignment.seed != job.seed]
    assert [assignment.seed - job.seed for assignment in repeats] == [1] * 3 + [2] * 3
    assert {done.worker.design_of(one) for one in repeats} == {1, 3, 4}


def test_the_api_says_the_split_of_each_trial_and_the_means_are_over_splits(done: Done) -> None:
    assert done.service.client.job(done.job.id).luthier.splits == 3
    found = done.trials
    assert {trial.number: trial.split for trial in found if trial.confirms is None} == dict.fromkeys(range(5), 0)
    assert sorted(trial.split for trial in found if trial.confirms is not None) == [1, 1, 1, 2, 2, 2]
    for number in (1, 3, 4):
        seeds = [trial for trial in found if number in (trial.number, trial.confirms)]
        expected = mean_metrics([seed.metrics for seed in seeds if seed.metrics is not None])
        assert found[number].seeds == 3
        assert found[number].mean_metrics == expected
        assert expected.bits_per_byte == pytest.approx(QUALITY[number] + sum(HARDER) / 3)


def test_the_best_of_all_splits_wins_and_is_compared_with_the_base_on_the_same_rows(done: Done) -> None:
    best = done.service.client.best(done.job.id)
    assert (best.number, best.winner) == (3, 3)
    assert best.base_metrics is not None
    assert best.metrics.bits_per_byte == pytest.approx(2.0 + sum(HARDER) / 3)
    figures = re.search(r"vs\. untuned base</dt>\s*<dd>(.*?)</dd>", done.page(), re.DOTALL)
    assert figures is not None
    assert "33" in figures[1], "2.0 instead of 3.0 on the rows of both, and not 2.4 instead of 3.0"
    listing = done.service.http.get("/jobs.json").json()
    [line] = [one for one in listing if one["id"] == done.job.id]
    assert (line["best"], line["base"]) == (pytest.approx(2.0 + sum(HARDER) / 3), 3.0)


def test_the_report_says_on_how_many_splits_and_leaves_their_differences_out_of_the_spread(done: Done) -> None:
    report = done.service.client.report(done.job.id)
    assert report.judge.splits == 3
    assert {one.number: one.seeds for one in report.scores if one.seeds} == {3: 3, 1: 3}
    for one in report.seeds:
        if len(one.seeds) == 3:
            assert [seed.split for seed in one.seeds] == [0, 1, 2]
            assert one.spread == pytest.approx(0.0, abs=1e-9)
            assert one.validation_mean == pytest.approx(QUALITY[one.number] + sum(HARDER) / 3)
    compared = {one.against: (one.difference, one.seeds) for one in report.comparisons}
    assert compared["plain-LoRA default"] == (pytest.approx(-0.5), (3, 3))
    assert compared["untuned base"] == (pytest.approx(-1.0), (3, 1))
    front = {one.number for one in report.front}
    assert 3 in front
    assert 2 not in front, "2.2 is worse than 3 on the rows of both, though better than its mean of 2.4"


def test_pages_and_card_name_the_splits(done: Done) -> None:
    assert 'id="splits"' in done.page()
    repeat = next(trial for trial in done.trials if trial.split == 2)
    shown = done.page(f"/trials/{repeat.number}")
    assert "split 3 <small>of 3</small>" in shown
    assert "trained on 36 rows, validated on 12" in shown
    assert "untuned base 3" not in shown.split("Bits per byte, test")[0], "the base was not scored on these rows"
    assert "split 1 <small>of 3</small>" in done.page("/trials/3")
    for form in ("html", "markdown"):
        text = done.service.http.get(f"/v1/fine_tuning/jobs/{done.job.id}/report", params={"format": form}).text
        assert "3 splits" in text
    answer = done.service.http.get(f"/v1/fine_tuning/jobs/{done.job.id}/artifact", params={"format": "merged"})
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        member = archive.extractfile("README.md")
        assert member is not None
        assert "cross-validation" in member.read().decode()


def test_the_rows_of_the_splits_are_kept_from_garbage_collection(done: Done) -> None:
    context, job = done.service.context, done.job
    further = {digest for split in job.resplits for digest in (split.train, split.validation)}
    assert len(further) == 4
    with context.database.read() as c:
        assert artifacts.unreferenced(c, further) == set()
    context.garbage.release(further)
    later = job.created_at + timedelta(days=1)
    assert context.garbage.sweep(context.database, context.blobs, later) == set()
    assert all(context.blobs.size(digest) for digest in further)


def test_an_extended_search_repeats_new_finalists_on_the_same_splits(service: Service) -> None:
    job_id = service.submit(sums(), search={**SEARCH, "finalists": 1, "confirmations": 1, "trials": 4})
    worker = Splitter(service.http, job=record(service, job_id))
    worker.quality = lambda number: 0.5 if number >= 6 else 2.0 + number / 100
    worker.register()
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    before = service.client.trials(job_id)
    service.client.extend(job_id, trials=2)
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    added = service.client.trials(job_id)[len(before) :]
    assert [trial.split for trial in added if trial.confirms is not None] == [1]
    assert service.client.report(job_id).winner.number == len(before)  # type: ignore[union-attr]


def test_a_job_of_an_earlier_version_repeats_on_its_own_rows(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(sums(), search={**SEARCH, "trials": 3})
    with service.context.database.begin() as c:
        c.exec_driver_sql("UPDATE jobs SET resplits = '[]'")
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    assert {(one.train, one.judge.validation) for one in worker.done} == {
        (record(service, job_id).train, record(service, job_id).judge.validation)
    }
    assert {trial.split for trial in service.client.trials(job_id)} == {0}
    assert service.client.report(job_id).judge.splits == 1
    assert 'id="splits"' not in service.http.get(f"/jobs/{job_id}").text


@pytest.mark.parametrize(
    ("count", "own_validation", "confirmations", "further"),
    [(60, False, 3, 3), (60, False, 0, 0), (60, True, 2, 0), (520, False, 2, 0)],
)
def test_jobs_with_enough_rows_or_rows_of_their_own_have_one_split(
    service: Service, worker: FakeWorker, count: int, own_validation: bool, confirmations: int, further: int
) -> None:
    own = {} if not own_validation else {"validation_file": service.upload(sums(90)[60:], name="own.jsonl")}
    body = {"training_file": service.upload(sums(count)), "search": {**SEARCH, "confirmations": confirmations}, **own}
    created = service.http.post("/v1/fine_tuning/jobs", json=body)
    assert created.status_code == 200, created.text
    found = created.json()["luthier"]
    assert len(record(service, created.json()["id"]).resplits) == further
    assert (found["splits"], found["expected"]["splits"]) == (1 + further, 1 + further)
    said = [message for message in service.messages(created.json()["id"]) if "cross-validation" in message]
    assert len(said) == (further > 0)


def test_creation_states_the_price_of_the_repeats(service: Service, worker: FakeWorker) -> None:
    body = {"training_file": service.upload(sums()), "search": SEARCH}
    found = service.http.post("/v1/fine_tuning/jobs", json=body).json()["luthier"]["expected"]
    assert (found["repeats"], found["splits"]) == (REPEATED_TWICE, 3)
    assert 0 < found["repeat_seconds"] < found["device_seconds"]
    short = {**body, "search": {**SEARCH, "device_seconds": 0.7 * found["device_seconds"]}}
    scarce = service.http.post("/v1/fine_tuning/jobs", json=short).json()["luthier"]["expected"]
    assert scarce["splits"] < 3
    assert scarce["repeat_seconds"] == pytest.approx(found["repeat_seconds"] * scarce["repeats"] / REPEATED_TWICE)
    space = service.http.post("/v1/designs/space", json=body)
    assert space.status_code == 200, space.text
    assert space.json()["expected"]["splits"] == 3
