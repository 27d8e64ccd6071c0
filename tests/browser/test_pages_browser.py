"""In a real browser: a dataset, the form, the winner, an added design, a schedule, the playground."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from luthier.models.base_model import BaseModelEntry
from luthier.store import models
from luthier.trial import JobState, LogLine, Sample, TrialState
from luthier.worker_protocol import Assignment
from tests.browser.study import StudyWorker
from tests.integration.service_harness import Service, preferences, serving, sums, wait_until

pytestmark = pytest.mark.xdist_group("browser")  # one process starts the browser and the services
QUESTION, ANSWER, BASE_ANSWER = "What is 2 + 2?", "It is 4, gladly.", "I could not say."


@dataclass
class TalkingWorker(StudyWorker):
    """Also leaves a log and answers."""

    def finish(self, assignment: Assignment, **report: Any) -> httpx.Response:
        if report["outcome"] == "complete":
            said = ANSWER if assignment.design.stages else BASE_ANSWER
            report["samples"] = (Sample(prompt=QUESTION, reference="It is 4.", answer=said),)
            report["lines"] = (LogLine(number=0, at=datetime.now(UTC), text="Trained to the end: 60 steps"),)
        return super().finish(assignment, **report)


@dataclass
class Workshop:
    """A service with a worker that leases every trial, unless it is paused."""

    service: Service
    worker: TalkingWorker
    working: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.closed.is_set():
            if self.working.wait(0.05) and (found := self.worker.lease()) is not None:
                self.worker.work(found)
            else:
                self.closed.wait(0.05)

    def goto(self, page: Page, path: str) -> None:
        page.goto(f"{self.service.url}{path}")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with serving(tmp_path_factory.mktemp("pages") / "home") as service, httpx.Client(base_url=service.url) as line:
        service.add_model()
        worker = TalkingWorker(line, name="bench-1")
        worker.register()
        shop = Workshop(service, worker)
        thread = threading.Thread(target=shop.run)
        thread.start()
        yield shop
        shop.closed.set()
        thread.join()


@pytest.fixture
def at_work(workshop: Workshop) -> Iterator[Workshop]:
    workshop.working.set()
    yield workshop
    workshop.working.clear()


def job_of(page: Page) -> str:
    return page.url.split("/jobs/")[1].split("/")[0].split("?")[0]


def test_a_file_with_faults_is_refused_with_the_rows_and_fields(browser: Browser, workshop: Workshop) -> None:
    page = browser.new_page()  # which may say that the service answered 400
    workshop.goto(page, "/datasets")
    rows = [*sums(3), {"prompt": "no completion"}]
    content = "\n".join(map(json.dumps, rows)).encode()
    page.get_by_label("Upload a dataset").set_input_files(
        {"name": "bad.jsonl", "mimeType": "application/jsonl", "buffer": content}
    )
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("row 4")
    page.close()


def test_from_a_file_through_the_form_to_the_winner(page: Page, at_work: Workshop, tmp_path: Path) -> None:
    client = at_work.service.client
    file = tmp_path / "arithmetic.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in sums(64)))
    at_work.goto(page, "/datasets")
    page.get_by_label("Upload a dataset").set_input_files(file)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("arithmetic.jsonl")
    page.get_by_label("Search rows").press_sequentially("is 14 + 14")
    expect(page.locator("#rows .row")).to_have_count(1)
    expect(page.locator("#rows .row")).to_contain_text("It is 28.")

    page.get_by_role("link", name="New job").last.click()
    expect(page.get_by_text("of device time")).to_be_visible()
    page.get_by_label("Designs to try").fill("4")
    page.locator("#refused-algorithm summary").click()
    expect(page.locator("#axis-algorithm .refused")).to_contain_text("dpo")
    page.get_by_label("dora").check()
    page.get_by_label("full", exact=True).check()
    expect(page.locator("#costs-words")).to_contain_text("2 weight updates")
    page.get_by_text("Reliability").click()
    page.get_by_label("Repeat seeds").fill("0")
    page.get_by_label("Tags").fill("violin, test")
    start = page.get_by_role("button", name="Start the search")
    expect(start).to_be_enabled()
    start.click()
    page.wait_for_url("**/jobs/ftjob-*")
    job = job_of(page)
    asked = client.job(job)
    assert set(asked.luthier.search.pin.update or ()) == {"full", "dora"}
    assert asked.luthier.tags == ("violin", "test")
    expect(page.locator("#notes summary")).to_contain_text("violin")

    wait_until(lambda: client.job(job).status is JobState.SUCCEEDED)
    best = client.best(job)
    expect(page.locator(".leaderboard tr.won")).to_have_attribute("data-number", str(best.number))
    page.locator(".leaderboard tr.won td.design a").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(best.summary)
    page.wait_for_selector("#chart-loss[data-drawn]")
    expect(page.locator(".sample").first).to_contain_text(ANSWER)
    expect(page.locator(".sample").first).to_contain_text(BASE_ANSWER)
    expect(page.locator("table.log")).to_contain_text("Trained to the end: 60 steps")
    with page.expect_download() as download:
        page.locator("#curves a", has_text="CSV").click()
    assert download.value.path().read_text().startswith("stage,step,name,value,at\n")


def test_a_new_job_like_another_starts_from_its_settings(page: Page, workshop: Workshop) -> None:
    job = workshop.service.submit(search={"trials": 5, "finalists": 2, "memory": False}, suffix="again")
    workshop.service.client.cancel(job)
    workshop.goto(page, f"/new?job={job}")
    expect(page.get_by_role("button", name="Start the search")).to_be_enabled()
    expect(page.get_by_label("Designs to try")).to_have_value("5")
    page.get_by_text("Reliability").click()
    expect(page.get_by_label("Finalists")).to_have_value("2")
    expect(page.get_by_label("Warm start")).not_to_be_checked()
    expect(page.get_by_label("Model name suffix")).to_have_value("again")


def test_what_cannot_be_is_said_before_the_button(page: Page, workshop: Workshop) -> None:
    file = workshop.service.upload(preferences(), "wishes.jsonl")
    workshop.goto(page, f"/new?file={file}")
    start = page.get_by_role("button", name="Start the search")
    expect(start).to_be_enabled()
    page.get_by_text("Advanced").click()
    page.get_by_label("LoRA rank").fill("0")
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"rank.*1024"))
    expect(start).to_be_disabled()
    page.get_by_label("LoRA rank").fill("4, 8")
    expect(start).to_be_enabled()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_manual_design_is_priced_queued_and_stopped(page: Page, workshop: Workshop) -> None:
    service, worker = workshop.service, workshop.worker
    job = service.submit(search={"trials": 8})
    for _ in range(2):
        worker.work(worker.take())
    workshop.goto(page, f"/jobs/{job}/trials/1")
    page.get_by_role("link", name="Clone and edit").click()
    queue = page.get_by_role("button", name="Queue this design")
    expect(page.locator("#summary")).to_contain_text("lora r16")
    expect(queue).to_be_disabled()  # nothing is changed yet
    page.get_by_label("LoRA rank").fill("4")
    expect(page.locator("#summary")).to_contain_text("lora r4")
    page.get_by_label("dora").check()
    expect(page.locator("#summary")).to_contain_text("dora r4")
    queue.click()
    page.wait_for_url("**/trials/*")
    expect(page.locator("#part-head")).to_contain_text("manually")
    added = service.client.trials(job)[-1]
    assert (added.origin, added.design.stages[0].update.kind) == ("user", "dora")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#part-head .state")).to_have_text("cancelled")
    assert service.client.trial(job, added.id).state is TrialState.CANCELLED
    workshop.goto(page, f"/jobs/{job}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#part-head .state")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#part-head .state")).to_have_text("running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#part-head .state")).to_have_text("cancelled")


def test_a_schedule_is_created_and_run_now(page: Page, workshop: Workshop) -> None:
    workshop.service.upload(sums(64), "nightly.jsonl")
    workshop.goto(page, "/schedules")
    page.get_by_role("link", name="New schedule").first.click()
    page.get_by_label("Name", exact=True).fill("every Friday")
    page.get_by_role("button", name="Fridays").click()
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_label("Dataset").select_option("newest:nightly.jsonl")
    page.get_by_label("Designs to try").fill("3")
    page.get_by_role("button", name="Create schedule").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("every Friday")
    expect(page.locator("main")).to_contain_text("newest nightly.jsonl")
    page.get_by_role("button", name="Run now").click()
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    page.locator("#runs tbody a").click()
    page.wait_for_url("**/jobs/ftjob-*")
    workshop.service.client.cancel(job_of(page))


def test_two_models_answer_side_by_side_as_they_speak(page: Page, workshop: Workshop) -> None:
    asked: list[dict[str, Any]] = []

    def answer(route: Route) -> None:
        body = json.loads(route.request.post_data or "")
        asked.append(body)
        words = [f"{body['model']} heard ", str(len(body["messages"])), " messages"]
        chunks = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in words]
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        route.fulfill(status=200, content_type="text/event-stream", body=events)

    page.route("**/v1/chat/completions", answer)
    workshop.goto(page, "/playground")
    message = page.get_by_placeholder("Ask both …")
    left, right = page.locator("[data-side=left] .turns"), page.locator("[data-side=right] .turns")
    for text in ("Hello", "And again"):
        message.fill(text)
        message.press("Enter")
        expect(page.get_by_role("button", name="Ask both")).to_be_enabled()
        expect(right).to_contain_text(text)
    expect(left).to_contain_text("tiny-chat heard 3 messages")
    expect(right).to_contain_text(re.compile("heard 3 messages"))
    assert all(body["stream"] and body["temperature"] == 0 for body in asked)
    page.get_by_role("button", name="New conversation").click()
    expect(left).not_to_contain_text("heard")


@pytest.mark.parametrize("path", ["/workers", "/models", "/datasets", "/schedules", "/new", "/playground", "/glossary"])
def test_nothing_is_wider_than_a_phone(page: Page, workshop: Workshop, path: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    workshop.goto(page, path)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("width", [1280, 1200, 390])
def test_the_models_show_what_is_not_possible_and_their_buttons(page: Page, workshop: Workshop, width: int) -> None:
    reason = "gpt2 has no layers of keys and values alone (k_proj, v_proj), which this edit needs"
    entry = BaseModelEntry(
        name="a-model-with-a-long-name-of-a-family-and-a-size-and-a-date-2026-11-29",
        source="/srv/models/" + "a-long-folder/" * 8,
        facts=workshop.service.client.model("tiny-chat").facts.model_copy(
            update={"architecture": "SomeFamilyForConditionalGeneration", "unsupported": {"kv_heads": reason}}
        ),
    )
    with workshop.service.context.database.begin() as c:
        models.add(c, entry, datetime.now(UTC))
    try:
        page.set_viewport_size({"width": width, "height": 900})
        workshop.goto(page, "/models")
        summary = page.locator("[data-unsupported] summary")
        expect(summary).to_contain_text("kv_heads")
        summary.click()
        expect(page.get_by_text(reason)).to_be_visible()
        for button in page.get_by_role("button", name="Remove").all():
            box = button.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        hidden = page.locator(".models").evaluate_all(
            "all => all.map(t => t.scrollWidth - t.parentElement.clientWidth)"
        )
        assert max(hidden) <= 0
    finally:
        with workshop.service.context.database.begin() as c:
            models.remove(c, entry.name)


def test_adding_a_model_shows_its_steps(page: Page, workshop: Workshop) -> None:
    def answer(route: Route) -> None:
        assert route.request.headers["accept"] == "text/event-stream"
        error = {"message": "no such folder", "type": "invalid_request_error", "param": "source", "code": "x"}
        events = [{"step": "Reading the files of /m"}, {"error": error}]
        body = "".join(f"event: x\r\ndata: {json.dumps(event)}\r\n\r\n" for event in events)
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/v1/models", answer)
    workshop.goto(page, "/models")
    page.get_by_label("Name").fill("mine")
    page.get_by_label(re.compile("Folder or GGUF")).fill("/m")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#problem")).to_have_text("no such folder")
    expect(page.locator("#step")).to_have_text(re.compile("Reading the files of /m"))
