"""What the report recommends is what `best`, the model's name, export, chat, aliases and pages name by default."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from luthier.api_types import Job
from luthier.cli import app
from luthier.errors import IllegalDesign, NotFound
from luthier.metrics import mean_metrics
from luthier.store import jobs
from luthier.trial import Metrics
from luthier.worker_protocol import Artifact, Assignment
from service.inference.model_names import resolve
from tests.integration.service_harness import FakeWorker, Service, metrics, row_scores, serving, sums

UNEDITED = {"layers": [6], "kv_heads": [4], "window": [0], "rope_factor": [1]}
SEARCH: dict[str, Any] = {
    "trials": 4,
    "finalists": 2,
    "confirmations": 2,
    "early_finish": False,
    "memory": False,
    "pin": {"update": ["lora"], "algorithm": ["sft"], **UNEDITED},
}
CARD = "# a card\n"


@dataclass
class Scorer(FakeWorker):
    """Scores the validation rows by number, with seeds that differ, and the test rows as the test says."""

    tested: Callable[[int], float] = lambda number: 3.0 - number / 10
    first: dict[str, int] | None = None

    def __post_init__(self) -> None:
        self.score = lambda assignment: metrics(3.0 - self.design_of(assignment) / 10 + assignment.seed % 97 / 1e4)

    def design_of(self, assignment: Assignment) -> int:
        """The number of the trial that was the first to have this design."""
        self.first = self.first or {}
        return self.first.setdefault(f"{assignment.job_id} {assignment.design.digest()}", assignment.number)

    def work(self, assignment: Assignment) -> None:
        self.seconds = 1.0 if assignment.number < 2 else 5.0  # the default is the cheapest
        super().work(assignment)

    def finish(self, assignment: Assignment, **report: Any) -> httpx.Response:
        if report.get("test_metrics") is not None:
            scored = metrics(self.tested(self.design_of(assignment)))
            report |= {"test_metrics": scored, "test_scores": row_scores(scored)}
        return super().finish(assignment, **report)

    def export(self, assignment: Assignment) -> tuple[Artifact, ...]:
        card = {"README.md": self.put(CARD)}
        return tuple(one.model_copy(update={"files": one.files | card}) for one in super().export(assignment))


# What the test rows say of a design by the number of its first trial; the validation rows like later ones better.
CASES: dict[str, tuple[Callable[[int], float], int, str]] = {
    "winner": (lambda number: 3.0 - number / 10, 3, "winner"),
    "default": (lambda number: 3.0 if number == 0 else 2.0, 1, "plain-LoRA default"),
    "base": (lambda number: 3.0, 0, "untuned base"),
}


@dataclass(frozen=True)
class Done:
    service: Service
    job: Job
    recommended: int
    take: str

    @property
    def path(self) -> str:
        return f"/v1/fine_tuning/jobs/{self.job.id}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("truth")) as service:
        service.add_model()
        yield service


@pytest.fixture(scope="module", params=list(CASES))
def done(service: Service, request: pytest.FixtureRequest) -> Done:
    """A finished job, and the trial that its report has to recommend."""
    tested, number, take = CASES[request.param]
    worker = Scorer(service.http, name=request.param, tested=tested)
    worker.register()
    job_id = service.submit(sums(), search=SEARCH, suffix=request.param)
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    return Done(service, service.client.job(job_id), number, take)


def run(done: Done, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"LUTHIER_SERVER": done.service.url, "COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_report_and_best_name_one_trial(done: Done) -> None:
    report, best = done.service.client.report(done.job.id), done.service.client.best(done.job.id)
    assert (report.recommendation.take, report.recommendation.number) == (done.take, done.recommended)
    assert best.number == done.recommended
    assert best.recommendation == report.recommendation
    assert report.winner is not None
    assert (report.winner.number, best.winner) == (3, 3), "the best on the validation rows is another matter"
    assert report.scores[0].number == done.recommended
    assert report.scores[0].metrics == best.metrics
    assert report.scores[0].test_metrics == best.test_metrics


def test_the_job_and_its_models_name_stand_for_it(done: Done) -> None:
    standing = done.job.luthier.best
    assert standing is not None
    assert standing.number == done.recommended
    assert done.job.fine_tuned_model is not None
    best = done.service.client.best(done.job.id)
    with done.service.context.database.read() as c:
        found = resolve(c, done.job.fine_tuned_model)
        record = jobs.get(c, done.job.id)
    assert record.best_trial_id == best.trial
    assert found.trial is None if done.recommended == 0 else found.trial is not None and found.trial.id == best.trial
    assert best.model == ("tiny-chat" if done.recommended == 0 else done.job.fine_tuned_model)
    event = next(message for message in done.service.messages(done.job.id) if message.startswith("Finished"))
    assert f"trial {done.recommended}," in event


def test_charts_and_pages_name_it(done: Done) -> None:
    assert done.service.client.landscape(done.job.id).best == done.recommended
    page = done.service.http.get(f"/jobs/{done.job.id}").text
    head = page[page.index('<dl class="figures">') : page.index("</dl>")]
    assert f"<dd>trial {done.recommended}" in head
    won = re.findall(r'<tr class="won[^"]*" data-number="(\d+)"', page)
    assert won == [str(done.recommended)]
    for number in (0, 1, 3):
        trial = done.service.http.get(f"/jobs/{done.job.id}/trials/{number}").text
        assert ('<span class="pill good">recommended</span>' in trial) == (number == done.recommended)
    models = done.service.http.get("/models").text
    row = models[models.index(str(done.job.fine_tuned_model)) :]
    assert f"/jobs/{done.job.id}/trials/{done.recommended}" in row[: row.index("</tr>")]


def test_the_command_line_names_it(done: Done) -> None:
    assert json.loads(run(done, "best", done.job.id, "--json"))["number"] == done.recommended
    words = done.service.client.report(done.job.id).recommendation.words
    assert words[0] in " ".join(run(done, "best", done.job.id).split())
    assert re.search(rf"^ *{done.recommended} .*★", run(done, "trials", done.job.id), re.MULTILINE)


def test_export_downloads_it_or_says_what_else_there_is(done: Done, tmp_path: Path) -> None:
    client = done.service.client
    if done.recommended == 0:
        with pytest.raises(NotFound) as refused:
            client.download(done.job.id, tmp_path / "none")
        assert (refused.value.param, "trial 3" in refused.value.message) == ("format", True)
    else:
        client.download(done.job.id, tmp_path / "own")
        own = client.trial(done.job.id, str(done.recommended))
        assert (tmp_path / "own" / "model.safetensors").read_text() == f"weights of {own.id}"
    run(done, "export", done.job.id, str(tmp_path / "third"), "--trial", "3")
    third = client.trial(done.job.id, "3")
    assert (tmp_path / "third" / "model.safetensors").read_text() == f"weights of {third.id}"


def test_another_trial_can_be_named(done: Done) -> None:
    client = done.service.client
    third = client.best(done.job.id, "3")
    assert (third.number, third.seeds, third.winner) == (3, 3, 3)
    assert third.model is not None
    assert third.recommendation is not None
    assert third.recommendation.number == done.recommended
    with pytest.raises(NotFound) as unknown:
        client.best(done.job.id, "99")
    assert unknown.value.param == "trial"
    assert json.loads(run(done, "best", done.job.id, "--trial", "1", "--json"))["number"] == 1


# Means over the seeds


def means(done: Done, number: int) -> tuple[Metrics, int]:
    trials = done.service.client.trials(done.job.id)
    seeds = [one.metrics for one in trials if number in (one.number, one.confirms) and one.metrics is not None]
    return mean_metrics(seeds), len(seeds)


def test_every_listing_has_the_mean_and_the_number_of_seeds(done: Done) -> None:
    client = done.service.client
    expected, count = means(done, 3)
    assert count == 3
    trial = next(one for one in client.trials(done.job.id) if one.number == 3)
    assert (trial.mean_metrics, trial.seeds) == (expected, 3)
    assert trial.metrics != expected, "its own seed"
    assert client.trial(done.job.id, "3").mean_metrics == expected
    assert client.best(done.job.id, "3").metrics == expected
    page = done.service.http.get(f"/jobs/{done.job.id}/trials.json").json()
    line = next(one for one in page if one["number"] == 3)
    assert (line["score"], line["seeds"]) == (pytest.approx(expected.bits_per_byte), 3)
    assert line["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    land = client.landscape(done.job.id)
    assert land.seeds[land.number.index(3)] == 3
    output = run(done, "trials", done.job.id)
    assert re.search(rf"^ *3 .*{expected.bits_per_byte:#.4g} .* 3 ", output, re.MULTILINE), output
    if done.recommended:
        mean, _ = means(done, done.recommended)
        standing = done.job.luthier.best
        assert standing is not None
        assert (standing.metrics, standing.seeds) == (mean, 3)
        assert "(n=3)" in run(done, "jobs")
        models = done.service.http.get("/models").text
        row = models[models.index(str(done.job.fine_tuned_model)) :]
        assert f"{mean.bits_per_byte:#.4g}" in row[: row.index("</tr>")]
        assert '<td class="n" data-label="n">3</td>' in row[: row.index("</tr>")]


def test_the_downloaded_card_has_the_means_of_the_seeds(done: Done) -> None:
    answer = done.service.http.get(f"{done.path}/artifact", params={"trial": "3"})
    assert answer.status_code == 200, answer.text
    with tarfile.open(fileobj=BytesIO(answer.content)) as archive:
        member = archive.extractfile("README.md")
        assert member is not None
        card = member.read().decode()
    expected, _ = means(done, 3)
    assert card.startswith(CARD)
    assert re.search(rf"trial 3\) \| n=3 \|.*{expected.bits_per_byte:#.4g}", card)
    assert "untuned base (trial 0)" in card
    assert "learning rate" in card.lower()
    assert "(×" in card


def test_an_alias_stands_for_the_recommended_trial(done: Done) -> None:
    assert done.job.fine_tuned_model is not None
    client = done.service.client
    client.set_alias(f"truth-{done.recommended}", done.job.fine_tuned_model)
    best = client.best(done.job.id)
    with done.service.context.database.read() as c:
        found = resolve(c, f"alias/truth-{done.recommended}")
    assert (found.trial.id if found.trial is not None else found.name, found.base is not None) == (
        best.trial if done.recommended else done.job.fine_tuned_model,
        True,
    )


def test_a_running_job_already_agrees_with_its_report(service: Service) -> None:
    worker = Scorer(service.http, name="running", tested=lambda number: 3.0)
    worker.register()
    job_id = service.submit(sums(), search=SEARCH, suffix="running")
    for _ in range(3):
        worker.work(worker.take())
    report, best = service.client.report(job_id), service.client.best(job_id)
    assert (report.recommendation.number, best.number) == (0, 0)
    page = service.http.get(f"/jobs/{job_id}").text
    assert "<dd>trial 0" in page
    service.client.cancel(job_id)
    assert service.client.best(job_id).number == service.client.report(job_id).recommendation.number


def test_few_rows_are_warned_of_when_a_job_is_created(service: Service) -> None:
    few = service.submit(sums(20), search={"trials": 2})
    assert any(event.level == "warn" and "Few rows" in event.message for event in service.client.events(few))
    enough = service.submit(sums(600), search={"trials": 2})
    assert not any("Few rows" in event.message for event in service.client.events(enough))
    for count, warned in ((20, True), (600, False)):
        space = service.client.design_space(service.upload(sums(count)))
        assert bool(space.warnings) == warned
    for job_id in (few, enough):
        service.client.cancel(job_id)


def test_a_pinned_learning_rate_is_a_number_in_the_request_and_the_log(service: Service, tmp_path: Path) -> None:
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in sums()))
    arguments = ["submit", str(data), "--learning-rate", "3e-4", "--trials", "3", "--update", "lora", "--json"]
    result = CliRunner().invoke(app, arguments, env={"LUTHIER_SERVER": service.url})
    assert result.exit_code == 0, result.output
    job = json.loads(result.stdout)
    assert job["luthier"]["search"]["pin"]["learning_rate"] == [3e-4]
    assert any("Learning rate 0.0003" in message and "lora" in message for message in service.messages(job["id"]))
    service.client.cancel(job["id"])
    arguments[3] = "2"
    refused = CliRunner().invoke(app, arguments, env={"LUTHIER_SERVER": service.url})
    assert isinstance(refused.exception, IllegalDesign)
    assert refused.exception.param == "search.pin.learning_rate"


# Clones in the forms


def prefilled(service: Service, query: str) -> dict[str, Any]:
    page = service.http.get(f"/new?{query}").text
    found = re.search(r'<script type="application/json" id="prefilled">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    read: dict[str, Any] = json.loads(found[1])
    return read


def test_a_new_job_like_one_keeps_its_pins_and_limits(service: Service) -> None:
    pin = {"epochs": [8], "update": ["lora", "full"], "learning_rate": [3e-4], "beta": None, "rank": [24]}
    search = {"trials": 7, "finalists": 2, "confirmations": 1, "early_finish": False, "memory": False, "pin": pin}
    constraints = {"parameters": 10**9, "memory_bytes": 10**10}
    job_id = service.submit(sums(), search=search, constraints=constraints)
    service.client.cancel(job_id)
    found = prefilled(service, f"job={job_id}")
    for name, values in pin.items():
        assert found["pin"].get(name) == values
    assert found["constraints"] == constraints
    assert found["search"]["trials"] == 7
    again = service.client.create_job(
        found["training_file"], search={**found["search"], "pin": found["pin"]}, constraints=found["constraints"]
    )
    assert again.luthier.search == service.client.job(job_id).luthier.search
    assert again.luthier.constraints == service.client.job(job_id).luthier.constraints
    service.client.cancel(again.id)


def test_a_new_job_like_a_trial_pins_all_of_its_design(done: Done) -> None:
    found = prefilled(done.service, f"job={done.job.id}&trial=1")
    design = done.service.client.trial(done.job.id, "1").design
    again = done.service.client.create_job(
        found["training_file"], search={"trials": 2, "memory": False, "pin": found["pin"]}
    )
    pin = again.luthier.search.pin
    assert pin.epochs == (design.stages[0].optimiser.epochs,)
    assert pin.learning_rate == (design.stages[0].optimiser.learning_rate,)
    assert (pin.layers, pin.kv_heads) == ((6,), (4,))
    done.service.client.cancel(again.id)


def test_a_search_at_one_pinned_rate_runs_to_its_end(service: Service) -> None:
    worker = Scorer(service.http, name="rated")
    worker.register()
    pin = {"learning_rate": [3e-4], "update": ["lora", "full", "ia3"]}
    job_id = service.submit(search={"trials": 9, "finalists": 1, "confirmations": 0, "memory": False, "pin": pin})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"
    found = [one for one in service.client.trials(job_id) if one.number > 1]
    assert {one.design.stages[0].optimiser.learning_rate for one in found} == {3e-4}
    assert len({one.design.stages[0].update.kind for one in found}) > 1
