"""The registry of base models, the list of workers, the pages for people and for watchdogs, and the client's line."""

import io
import json
import logging
import re
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from luthier.client import Client
from luthier.errors import Conflict, IllegalDesign, LuthierError, NotFound, Unreachable, UserError
from service.jobs import model_registry
from tests import data_samples
from tests.integration.service_harness import TINY_CHAT, FakeWorker, Service, serving, wait_until

pytest_plugins = ("tests.integration.service_fixtures",)


def test_a_models_facts_are_read_from_its_folder(service: Service) -> None:
    (model,) = service.client.models()
    assert model == service.client.model("tiny-chat")
    assert model.source == str(TINY_CHAT)
    assert model.facts is not None
    assert (model.facts.architecture, model.facts.layers, model.facts.chat_template) == ("LlamaForCausalLM", 6, True)
    assert model.created > 0


def test_the_steps_of_a_registration_are_streamed_and_logged(
    bare: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(TINY_CHAT, tmp_path / "model")
    steps: list[str] = []
    with caplog.at_level(logging.INFO, logger="service.jobs.model_registry"):
        model = bare.client.add_model("tiny", str(folder), steps.append)
    assert model == bare.client.model("tiny")
    assert any("tokenizer" in step for step in steps)
    assert len(steps) == len(set(steps)) >= 5
    logged = [record.getMessage() for record in caplog.records]
    assert [step for step in steps if not any(step in line and "tiny" in line for line in logged)] == []
    with pytest.raises(UserError) as refused:
        bare.client.add_model("none", str(tmp_path / "nothing"), steps.append)
    assert refused.value.param == "source"
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        bare.client.add_model("tiny", str(folder), steps.append)


def test_a_registration_without_the_header_is_answered_as_before(bare: Service) -> None:
    body = {"name": "tiny", "source": str(TINY_CHAT)}
    plain = bare.http.post("/v1/models", json=body, headers={"Accept": "*/*"})
    assert (plain.status_code, plain.headers["content-type"], plain.json()["id"]) == (200, "application/json", "tiny")
    streamed = bare.http.post("/v1/models", json=body, headers={"Accept": "text/event-stream"})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    last = [line for line in streamed.text.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["model"] == plain.json()
    refused = bare.http.post("/v1/models", json={"name": "tiny"}, headers={"Accept": "text/event-stream"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "source")


def test_a_failure_of_the_service_ends_the_stream_with_an_error(bare: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(model_registry, "add", broken)
    with pytest.raises(LuthierError, match="log of the service") as failed:
        bare.client.add_model("tiny", str(TINY_CHAT), lambda step: None)
    assert failed.value.status == 500


def test_pickled_weights_are_refused(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(TINY_CHAT, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"no \*\.safetensors weights \(pickled weights are never loaded\)"):
        service.client.add_model("pickled", str(folder))


def test_a_model_is_neither_replaced_nor_removed_while_a_live_job_uses_it(service: Service, tmp_path: Path) -> None:
    other = shutil.copytree(TINY_CHAT, tmp_path / "other")
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    replace, remove = service.client.add_model, service.client.remove_model
    for change in (lambda: replace("tiny-chat", str(other)), lambda: remove("tiny-chat")):
        with pytest.raises(Conflict, match=job_id):
            change()
    service.client.cancel(job_id)
    assert replace("tiny-chat", str(other)).source == str(other)
    remove("tiny-chat")
    assert service.client.models() == []


def test_registering_a_model_again_changes_nothing_even_while_it_is_used(service: Service) -> None:
    (before,) = service.client.models()
    service.submit(search={"trials": 2, "confirmations": 0})
    assert service.client.add_model("tiny-chat", str(TINY_CHAT)) == before


def test_a_fine_tuned_model_names_its_job(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)
    _, tuned = service.client.models()
    assert (tuned.job, tuned.facts) == (job_id, None)


def test_the_workers_are_listed_with_what_they_compute_on(service: Service, worker: FakeWorker) -> None:
    (listed,) = service.client.workers()
    assert (listed.id, listed.name, listed.live) == (worker.id, "fake", True)
    assert listed.device.name == "pretended"


def test_the_documentation_is_complete_and_loads_nothing_from_elsewhere(service: Service) -> None:
    page = service.http.get("/docs")
    assert page.status_code == 200
    assert "//" not in re.sub(r"// .*", "", page.text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert service.http.get(address).status_code == 200

    api = service.http.get("/openapi.json").json()
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], f"{method} {path}"
            assert operation["tags"], f"{method} {path}"
            assert "4XX" in operation["responses"], f"{method} {path}"
            assert "422" not in operation["responses"], f"{method} {path}"
    create = api["paths"]["/v1/fine_tuning/jobs"]["post"]
    assert set(create["requestBody"]["content"]["application/json"]["examples"]) == {
        "auto",
        "openai",
        "graded",
        "environment",
    }


def test_the_documented_examples_are_accepted(service: Service) -> None:
    api = service.http.get("/openapi.json").json()
    body = api["paths"]["/v1/fine_tuning/jobs"]["post"]["requestBody"]["content"]["application/json"]
    rows = [{"prompt": f"{n}?", "completion": str(n)} for n in range(60)]
    file_id = service.upload(rows)
    for example in body["examples"].values():
        given = example["value"]
        rows_from = {"training_file": file_id} if "training_file" in given else {}
        answer = service.http.post("/v1/fine_tuning/jobs", json={**given, **rows_from})
        assert answer.status_code == 200, answer.text


def test_health_and_readiness(service: Service) -> None:
    assert service.http.get("/healthz").json() == {"status": "ok"}
    service.submit(search={"trials": 2, "confirmations": 0})
    ready = service.http.get("/readyz").json()
    assert (ready["status"], ready["active_jobs"]) == ("ready", 1)
    assert list(ready["loops"]) == ["jobs", "schedules", "webhooks"]


def test_the_service_is_not_ready_once_its_loop_has_ended(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        service.ticker.stop()
        answer = service.http.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "the jobs loop has stopped")
        assert service.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("look", "name"),
    [
        ("schedules.run.tick", "schedules"),
        ("jobs.reconcile.tick", "jobs"),
        ("integrations.webhooks.Outbox.look", "webhooks"),
    ],
)
def test_the_service_is_not_ready_while_one_of_its_loops_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str, name: str
) -> None:
    monkeypatch.setattr("service.background.PATIENCE", 1.0)
    free = threading.Event()
    monkeypatch.setattr(f"service.{look}", lambda *_: free.wait())
    with serving(tmp_path) as service:
        wait_until(lambda: f"the {name} loop is stuck" in service.http.get("/readyz").json()["status"])
        assert service.http.get("/healthz").status_code == 200
        free.set()
        wait_until(lambda: service.http.get("/readyz").status_code == 200)


def test_a_loop_whose_looks_all_fail_is_not_ready_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("service.background.PATIENCE", 1.0)
    monkeypatch.setattr("service.schedules.run.tick", fail)
    with serving(tmp_path) as service:
        wait_until(lambda: "the schedules loop is stuck" in service.http.get("/readyz").json()["status"])


def test_a_service_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with Client(url) as client, pytest.raises(Unreachable, match=url):
        client.jobs()


def test_something_else_that_answers_is_no_luthier_service() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever).start()
        url = f"http://127.0.0.1:{other.server_address[1]}"
        with Client(url) as client, pytest.raises(LuthierError, match="501"):
            client.models()
        other.shutdown()


def test_the_client_unpacks_weights_into_a_folder(service: Service, worker: FakeWorker, tmp_path: Path) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)
    files = service.client.download(job_id, tmp_path / "new" / "folder")
    assert sorted(file.name for file in files) == ["model.safetensors", "tokenizer.json"]
    assert (tmp_path / "new" / "folder" / "tokenizer.json").read_text() == "tokens"


def test_the_client_filters_jobs_by_metadata_and_limits(service: Service) -> None:
    ids = [
        service.submit(search={"trials": 2, "confirmations": 0}, metadata={"team": team}) for team in ("a", "b", "a")
    ]
    assert [job.id for job in service.client.jobs(metadata={"team": "a"})] == [ids[2], ids[0]]
    assert [job.id for job in service.client.jobs(limit=2)] == [ids[2], ids[1]]


def test_the_client_uploads_a_stream(service: Service) -> None:
    rows = "".join(json.dumps({"text": f"Line {n}."}) + "\n" for n in range(60))
    file = service.client.upload_stream(io.BytesIO(rows.encode()), "lines.jsonl")
    assert (file.filename, file.luthier.kind) == ("lines.jsonl", "text")


def test_an_unknown_job_is_not_found_by_any_of_the_clients_calls(service: Service) -> None:
    client = service.client
    for call in (client.job, client.events, client.trials, client.best, client.cancel):
        with pytest.raises(NotFound, match="ftjob-no") as refused:
            call("ftjob-no")
        assert refused.value.param == "fine_tuning_job_id"


def test_conversations_are_refused_where_no_model_has_a_chat_template(bare: Service, tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(TINY_CHAT, mute, ignore=shutil.ignore_patterns("chat_template.jinja"))
    bare.client.add_model("mute", str(mute))
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]}
        for n in range(30)
    ]
    with pytest.raises(IllegalDesign, match=r"mute: it has no chat template") as refused:
        bare.submit(rows)
    assert refused.value.param == "model"
    bare.add_model("tiny-chat")
    job = bare.client.job(bare.submit(rows))
    assert job.luthier.search.pin.model == ("tiny-chat",)


def test_tools_are_refused_by_row_and_field_where_no_chat_template_shows_them(bare: Service, tmp_path: Path) -> None:
    blind = shutil.copytree(TINY_CHAT, tmp_path / "blind")
    (blind / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    bare.client.add_model("blind", str(blind))
    rows = [*data_samples.chat(5), *data_samples.agent(40)]
    with pytest.raises(IllegalDesign, match=r"row 6, field `tools`: .*blind.*: none") as refused:
        bare.submit(rows)
    assert refused.value.param == "model"
    bare.add_model("tiny-chat")
    with pytest.raises(IllegalDesign, match=r"chat template of blind .*: tiny-chat"):
        bare.submit(rows, model="blind")
    job = bare.client.job(bare.submit(rows))
    assert job.luthier.search.pin.model == ("tiny-chat",)
    plain = bare.client.job(bare.submit(data_samples.chat(40)))
    assert plain.luthier.search.pin.model == ("blind", "tiny-chat")


def test_calls_without_a_list_of_tools_are_named_too(bare: Service, tmp_path: Path) -> None:
    blind = shutil.copytree(TINY_CHAT, tmp_path / "blind")
    (blind / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    bare.client.add_model("blind", str(blind))
    rows = [{"messages": row["messages"]} for row in data_samples.agent(40)]
    with pytest.raises(IllegalDesign, match=r"row 1, field `messages\[1\].tool_calls`"):
        bare.submit(rows)


def test_training_biases_alone_is_refused_before_it_is_queued_where_there_are_none(service: Service) -> None:
    with pytest.raises(IllegalDesign, match=r"bitfit.*tiny-chat.*choose from full"):
        service.submit(search={"trials": 3, "confirmations": 0, "pin": {"update": ["bitfit"]}})
    assert service.client.jobs() == []
