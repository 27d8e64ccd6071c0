"""Webhooks as a receiver gets them: in OpenAI's shape, signed, sent again until they are received."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from openai.types.webhooks import FineTuningJobCancelledWebhookEvent, FineTuningJobSucceededWebhookEvent
from standardwebhooks import Webhook
from typer.testing import CliRunner

from luthier.api_types import WebhookDelivery, WebhookEndpoint
from luthier.cli import app
from luthier.errors import NotFound
from luthier.store import jobs, webhooks
from service.integrations.webhooks import KEPT, WAITS, Outbox
from service.jobs import lifecycle
from tests.integration.service_harness import FakeWorker, Service, serving, sums, wait_until
from tests.webhook_receiver import Receiver, receiving

SMALL = {"trials": 2, "finalists": 1, "confirmations": 0}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("webhooks")) as service:
        service.add_model()
        yield service


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def endpoint(service: Service, receiver: Receiver) -> Iterator[WebhookEndpoint]:
    made = service.client.create_webhook(receiver.url)
    yield made
    service.client.delete_webhook(made.id)


def deliver(service: Service, now: datetime) -> None:
    """Returns when what is due has been sent once."""
    with closing(Outbox()) as outbox:
        outbox.look(service.context, now)


def only(service: Service, endpoint: WebhookEndpoint) -> WebhookDelivery:
    (delivery,) = service.client.webhook_deliveries(endpoint.id)
    return delivery


def settled(service: Service, endpoint: WebhookEndpoint, attempts: int) -> WebhookDelivery:
    """The one delivery, after so many attempts have been noted."""
    wait_until(lambda: only(service, endpoint).attempts == attempts and noted(only(service, endpoint)))
    return only(service, endpoint)


def noted(delivery: WebhookDelivery) -> bool:
    return delivery.state == "delivered" or delivery.error is not None


def test_openais_own_client_verifies_and_reads_what_arrives(
    service: Service, receiver: Receiver, endpoint: WebhookEndpoint
) -> None:
    job_id = service.submit(search=SMALL)
    worker = FakeWorker(service.http)
    worker.register()
    worker.work_until_ended(service.client, job_id)
    wait_until(lambda: bool(receiver.got))
    headers, body = receiver.got[0]
    assert endpoint.secret is not None
    with OpenAI(api_key="none", base_url=f"{service.url}/v1", webhook_secret=endpoint.secret) as client:
        event = client.webhooks.unwrap(body, headers)
        assert isinstance(event, FineTuningJobSucceededWebhookEvent)
        assert (event.type, event.data.id, event.object) == ("fine_tuning.job.succeeded", job_id, "event")
        assert event.created_at == client.fine_tuning.jobs.retrieve(job_id).finished_at
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(body.replace(job_id, "ftjob-another"), headers)
    assert Webhook(endpoint.secret).verify(body, headers)["id"] == headers["webhook-id"] == event.id
    delivered = settled(service, endpoint, 1)
    assert (delivered.state, delivered.status) == ("delivered", 200)


def test_what_is_not_received_is_sent_again_as_the_same_event(
    service: Service, receiver: Receiver, endpoint: WebhookEndpoint
) -> None:
    receiver.answers += [500, 302]
    job_id = service.submit(search=SMALL)
    service.client.cancel(job_id)
    first = settled(service, endpoint, 1)
    assert (first.state, first.status, first.error) == ("pending", 500, "answered 500")
    assert first.next_attempt_at is not None

    now = datetime.fromtimestamp(first.next_attempt_at, UTC)
    deliver(service, now + timedelta(seconds=1))
    assert only(service, endpoint).error == "answered 302", "a redirect is not followed"
    deliver(service, now + timedelta(seconds=2) + WAITS[1])
    last = only(service, endpoint)
    assert (last.state, last.attempts, last.status, last.error) == ("delivered", 3, 200, None)
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {first.event_id}
    assert len({headers["webhook-signature"] for headers, _ in receiver.got}) == 3, "signed at the time of sending"
    assert endpoint.secret is not None
    with OpenAI(api_key="none", webhook_secret=endpoint.secret) as client:
        event = client.webhooks.unwrap(receiver.got[0][1], receiver.got[0][0])
    assert isinstance(event, FineTuningJobCancelledWebhookEvent)
    assert event.data.id == job_id


def test_what_is_never_received_is_given_up(service: Service, cancelled_nowhere: WebhookEndpoint) -> None:
    now = datetime.now(UTC)
    for attempt, wait in enumerate(WAITS, start=2):
        now += wait + timedelta(seconds=5)
        deliver(service, now)
        delivery = only(service, cancelled_nowhere)
        assert delivery.attempts == attempt
    assert (delivery.state, delivery.status) == ("failed", None)
    assert delivery.error is not None
    assert "refused" in delivery.error
    service.client.cancel(service.submit(search=SMALL))
    deliver(service, now + timedelta(days=9))
    assert [one.attempts for one in service.client.webhook_deliveries(cancelled_nowhere.id)][1] == len(WAITS) + 1
    deliver(service, now + KEPT)
    assert only(service, cancelled_nowhere).state == "pending", "what is over is forgotten after a month"


@pytest.fixture
def cancelled_nowhere(service: Service) -> Iterator[WebhookEndpoint]:
    """An endpoint where nobody listens, told once of a cancelled job."""
    endpoint = service.client.create_webhook("http://127.0.0.1:9/hook")
    service.client.cancel(service.submit(search=SMALL))
    settled(service, endpoint, 1)
    yield endpoint
    service.client.delete_webhook(endpoint.id)


def test_a_receiver_that_hangs_holds_up_nobody_else_and_gets_its_events_in_order(
    service: Service, receiver: Receiver, endpoint: WebhookEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.integrations.webhooks.TIMEOUT", 60.0)
    with receiving() as hanging:
        hanging.answering.clear()
        slow = service.client.create_webhook(hanging.url)
        cancelled: list[str] = []
        for _ in range(3):
            cancelled.append(service.submit(search=SMALL))
            service.client.cancel(cancelled[-1])
            wait_until(lambda: len(receiver.got) == len(cancelled))
        wait_until(lambda: all(one.state == "delivered" for one in service.client.webhook_deliveries(endpoint.id)))
        held = service.client.webhook_deliveries(slow.id)
        assert [(one.state, one.attempts) for one in reversed(held)] == [("pending", 1), ("pending", 0), ("pending", 0)]
        assert len(hanging.got) == 1

        hanging.answering.set()
        wait_until(lambda: all(one.state == "delivered" for one in service.client.webhook_deliveries(slow.id)))
        assert [json.loads(body)["data"]["id"] for _, body in hanging.got] == cancelled
        service.client.delete_webhook(slow.id)


def test_an_endpoint_that_is_gone_is_not_bothered_again(
    service: Service, receiver: Receiver, endpoint: WebhookEndpoint
) -> None:
    receiver.answers.append(410)
    service.client.cancel(service.submit(search=SMALL))
    assert settled(service, endpoint, 1).state == "failed"


def test_an_endpoint_gets_only_what_it_asked_for(service: Service, receiver: Receiver) -> None:
    picky = service.client.create_webhook(receiver.url, ["fine_tuning.job.failed"])
    service.client.cancel(service.submit(search=SMALL))
    assert service.client.webhook_deliveries(picky.id) == []
    service.client.delete_webhook(picky.id)


def test_an_event_is_told_exactly_where_the_job_ends(service: Service, endpoint: WebhookEndpoint) -> None:
    """What is rolled back was not told."""
    job_id = service.submit(search=SMALL)

    class Broken(Exception):
        pass

    def cancel_and_break() -> None:
        with service.context.database.begin() as c:
            lifecycle.cancel(service.context, c, job_id, datetime.now(UTC))
            assert len(webhooks.deliveries(c, endpoint.id, None, 10)[0]) == 1
            raise Broken

    with pytest.raises(Broken):
        cancel_and_break()
    assert service.client.webhook_deliveries(endpoint.id) == []
    with service.context.database.read() as c:
        assert not jobs.get(c, job_id).state.terminal
    service.client.cancel(job_id)
    assert only(service, endpoint).payload["data"] == {"id": job_id}


def test_a_schedule_that_keeps_failing_is_told_once(
    service: Service, receiver: Receiver, endpoint: WebhookEndpoint
) -> None:
    job = {"training_file": {"newest": "nothing.jsonl"}, "search": SMALL}
    schedule = service.client.create_schedule("sad", "0 0 1 1 *", job, alert_after=2)
    for _ in range(4):
        last = service.client.run_schedule(schedule.id)
    told = only(service, endpoint)
    assert told.type == "luthier.schedule.failing"
    runs = service.client.schedule_runs(schedule.id)
    assert last == runs[0]
    assert told.payload["data"] == {
        "id": schedule.id,
        "name": "sad",
        "failures": 2,
        "run": runs[2].id,
        "job": None,
        "reason": runs[2].reason,
    }
    wait_until(lambda: bool(receiver.got))
    assert json.loads(receiver.got[0][1]) == told.payload

    service.upload(sums(), "nothing.jsonl")
    healed = service.client.run_schedule(schedule.id)
    worker = FakeWorker(service.http)
    worker.register()
    assert healed.job is not None
    worker.work_until_ended(service.client, healed.job)
    service.client.change_schedule(schedule.id, job={"training_file": {"newest": "not yet.jsonl"}})
    for _ in range(2):
        service.client.run_schedule(schedule.id)
    types = [delivery.type for delivery in service.client.webhook_deliveries(endpoint.id)]
    assert types.count("luthier.schedule.failing") == 2, "a new streak of failures is reported again"


def test_a_secret_is_shown_once(service: Service, endpoint: WebhookEndpoint) -> None:
    assert endpoint.secret is not None
    assert endpoint.secret.startswith("whsec_")
    for path in ("", f"/{endpoint.id}"):
        assert endpoint.secret not in service.http.get(f"/v1/webhook_endpoints{path}").text
    assert service.client.webhooks()[0].id == endpoint.id


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"url": "ftp://example.com"}, "url", "http://"),
        ({"url": "https://"}, "url", "http://"),
        ({"url": "http://exa mple.com"}, "url", "http://"),
        ({"url": "http://example.com", "events": []}, "events", "at least 1"),
        ({"url": "http://example.com", "events": ["job.done"]}, "events.0", "fine_tuning.job.succeeded"),
    ],
)
def test_what_is_no_endpoint_is_refused(service: Service, body: dict[str, Any], param: str, words: str) -> None:
    error = service.http.post("/v1/webhook_endpoints", json=body).json()["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_endpoints_that_are_not_there(service: Service) -> None:
    with pytest.raises(NotFound, match="whend-no"):
        service.client.delete_webhook("whend-no")
    with pytest.raises(NotFound, match="whend-no"):
        service.client.webhook_deliveries("whend-no")


def test_the_command_line_adds_lists_and_removes(service: Service, receiver: Receiver) -> None:
    def command(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["webhooks", *arguments, "--server", service.url], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.stdout

    added = command("add", receiver.url, "--event", "fine_tuning.job.cancelled")
    endpoint = added.split()[0]
    assert "whsec_" in added
    assert receiver.url in command("list")
    service.client.cancel(service.submit(search=SMALL))
    assert "fine_tuning.job.cancelled" in command("deliveries", endpoint)
    assert [one["type"] for one in json.loads(command("deliveries", endpoint, "--json"))] == [
        "fine_tuning.job.cancelled"
    ]
    assert endpoint in command("remove", endpoint)
    assert json.loads(command("list", "--json")) == []
