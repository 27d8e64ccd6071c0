"""What charts are drawn from, live streams, and tables for other programs."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier.api_types import CurvePoints, Event, Job, Trial, Update
from luthier.client import Client
from luthier.errors import NotFound
from luthier.trial import RUNGS
from tests.browser import study
from tests.integration.service_harness import FakeWorker, Service, serving, wait_until


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A service with a job that has ended, for tests that only read."""
    with study.studied(tmp_path_factory.mktemp("charts") / "home", trials=8, finalists=1, confirmations=1) as found:
        yield found


def test_curves_come_in_one_answer_thinned_but_with_their_ends_and_extremes(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    whole = {curve.number: curve for curve in service.client.curves(job_id, points=1000).trials}
    thinned = {curve.number: curve for curve in service.client.curves(job_id, points=12).trials}
    assert max(len(curve.step) for curve in whole.values()) == 60
    for number, curve in thinned.items():
        full = whole[number]
        assert len(curve.step) <= 12
        assert (curve.step[0], curve.step[-1]) == (full.step[0], full.step[-1])
        assert (min(curve.value), max(curve.value)) == (min(full.value), max(full.value))


def test_other_curves_are_named_and_rungs_stand_where_trials_were_scored(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    curves = service.client.curves(job_id, "valid_loss")
    assert curves.names == ("train_loss", "valid_loss")
    assert {mark.step for mark in curves.rungs} == {round(60 * share) for share in RUNGS}
    assert all(curve.step == tuple(range(10, curve.step[-1] + 1, 10)) for curve in curves.trials)


def test_the_landscape_has_every_scored_design_with_its_axes(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    land = service.client.landscape(job_id)
    trials = {trial.number: trial for trial in service.client.trials(job_id)}
    scored = [trial for trial in trials.values() if trial.metrics or trial.measured]
    designs = [trial.number for trial in scored if trial.design.stages and trial.confirms is None]
    assert list(land.number) == designs
    axes = {axis.axis: axis for axis in land.axes}
    assert all(len(axis.values) == len(designs) for axis in axes.values())
    batch = [trials[number].design.stages[0].optimiser.batch_size for number in designs]
    assert list(axes["batch size"].values) == batch
    assert land.best == service.client.best(job_id).number
    assert [score is None for score in land.score] == [trials[number].metrics is None for number in designs]


def test_the_timeline_has_every_lease_with_its_end(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    timeline = service.client.timeline(job_id)
    spans = [span for worker in timeline.workers for span in worker.spans]
    assert [worker.worker for worker in timeline.workers] == ["bench-0", "bench-1"]
    launched = {trial.number for trial in service.client.trials(job_id) if trial.started_at is not None}
    assert {span.number for span in spans} == launched
    assert all(span.end is not None and span.end >= span.start for span in spans)
    assert {span.outcome for span in spans} == {"complete", "paused"}


def test_a_lost_worker_ends_its_span(tmp_path: Path) -> None:
    with serving(tmp_path / "home", lease_seconds=0.2) as service:
        service.add_model()
        worker = FakeWorker(service.http)
        worker.register()
        job_id = service.submit()
        worker.take()
        wait_until(lambda: any("lost its worker" in message for message in service.messages(job_id)))
        (found,) = service.client.timeline(job_id).workers
        assert found.worker == "fake"
        assert found.spans[0].outcome == "lost"


def test_a_stream_tells_everything_and_ends_with_the_job(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    updates = list(service.client.stream(job_id))
    assert updates[-1].kind == "end"
    assert events(updates) == [event.id for event in reversed(service.client.events(job_id))]
    trials = {u.data.number: u.data for u in updates if isinstance(u.data, Trial)}
    assert [trials[number] for number in sorted(trials)] == service.client.trials(job_id)
    for trial in trials.values():
        sent = {point[:3]: point[3] for point in points(updates, trial.id)}
        kept = service.client.points(job_id, trial.id)
        assert sent == {(point.name, point.stage, point.step): point.value for point in kept}
    assert [u.data for u in updates if isinstance(u.data, Job)][-1] == service.client.job(job_id)


def test_a_stream_resumed_anywhere_leaves_nothing_out(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    ids = [event.id for event in reversed(service.client.events(job_id))]
    told = [event for event in reversed(service.client.events(job_id)) if event.data and "metrics" in event.data]
    for seen in (ids[0], told[2].id, ids[-1]):
        rest = list(service.client.stream(job_id, after=seen))
        assert events(rest) == ids[ids.index(seen) + 1 :]
        for event in told:
            if ids.index(event.id) > ids.index(seen):
                assert event.data is not None
                trial = event.data["trial"]
                assert len(points(rest, trial)) == len(service.client.points(job_id, trial))


def test_browsers_resume_by_their_header_and_an_unknown_event_is_refused(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    path = f"/v1/fine_tuning/jobs/{job_id}/events/stream"
    newest, before, *_ = service.client.events(job_id)
    answer = service.http.get(path, headers={"Last-Event-ID": before.id})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [line for line in answer.text.splitlines() if line.startswith("id: ")] == [f"id: {newest.id}"]
    with pytest.raises(NotFound, match="ftevent-x"):
        next(service.client.stream(job_id, after="ftevent-x"))
    with pytest.raises(NotFound, match="ftjob-"):
        next(service.client.stream("ftjob-x"))


def test_a_stream_goes_on_while_the_job_does(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service, Client(service.url) as watcher:
        service.add_model()
        worker = study.StudyWorker(service.http, name="one")
        worker.register()
        job_id = service.submit(search={"trials": 2, "confirmations": 0})
        stream = watcher.stream(job_id)
        first = worker.take()
        seen = read_until(stream, lambda u: isinstance(u.data, Trial) and u.data.state == "leased")
        assert not points(seen, first.trial_id)
        worker.work(first)
        second = worker.take()
        worker.train(second, 0.0, 0.5)
        seen = read_until(stream, lambda u: isinstance(u.data, CurvePoints) and u.data.number == 1)
        worker.work(second)
        seen += list(stream)
        assert seen[-1].kind == "end"
        assert len({point[:3] for point in points(seen, second.trial_id)}) == 66
        assert len(points(seen, second.trial_id)) == 66  # none of them twice


@pytest.mark.parametrize("table", ["trials", "curves", "axes", "front", "timeline", "events"])
def test_every_table_of_a_job_is_there_as_csv_and_json(studied: tuple[Service, str], table: str) -> None:
    service, job_id = studied
    lines = service.http.get(f"/jobs/{job_id}/{table}.json").json()
    answer = service.http.get(f"/jobs/{job_id}/{table}.csv")
    assert answer.headers["content-disposition"] == f'attachment; filename="{job_id}-{table}.csv"'
    read = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(read) == len(lines) > 0
    assert set(read[0]) == {name for line in lines for name in line}


def test_the_list_of_jobs_is_a_table_too(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    (line,) = service.http.get("/jobs.json").json()
    assert (line["id"], line["status"]) == (job_id, "succeeded")
    assert line["best"] < line["default"] < line["base"]


def test_a_table_that_does_not_exist_is_refused_with_those_that_do(studied: tuple[Service, str]) -> None:
    service, job_id = studied
    answer = service.http.get(f"/jobs/{job_id}/weights.csv")
    assert answer.status_code == 404
    assert "trials, curves, axes" in answer.json()["error"]["message"]


def events(updates: list[Update]) -> list[str]:
    return [update.data.id for update in updates if isinstance(update.data, Event)]


def points(updates: list[Update], trial_id: str) -> list[tuple[str, int, int, float]]:
    sent = [update.data for update in updates if isinstance(update.data, CurvePoints)]
    return [point for news in sent if news.trial == trial_id for point in news.points]


def read_until(stream: Iterator[Update], last: object) -> list[Update]:
    assert callable(last)
    found = []
    for update in stream:
        found.append(update)
        if last(update):
            return found
    raise AssertionError("the stream ended before")
