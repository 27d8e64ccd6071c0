"""The commands of docs/schedules.md and docs/webhooks.md, as they stand there, against a real service."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from typer.testing import CliRunner

from luthier.cli import app
from service.integrations.webhooks import WAITS
from tests.integration.service_harness import FakeWorker, Service, serving, sums, wait_until
from tests.webhook_receiver import receiving

DOCS = Path(__file__).parents[2] / "docs"


def block(page: str, name: str, language: str = "sh") -> str:
    [found] = re.findall(rf"<!-- test: {name} -->\n```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return str(found)


def run(service: Service, commands: str) -> str:
    """Each line as a command of its own; answers with what they print."""
    printed = ""
    for line in commands.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "luthier", line
        result = CliRunner().invoke(app, [*arguments, "--server", service.url], env={"COLUMNS": "200"})
        assert result.exit_code == 0, (line, result.output, result.exception)
        printed += result.output
    return printed


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("schedules-docs")) as service:
        service.add_model()
        service.upload(sums(), "data.jsonl")
        yield service


def test_the_page_on_schedules(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = service.client.file_content(service.client.files()[0].id)
    Path("data.jsonl").write_bytes(content)
    worker = FakeWorker(service.http)
    worker.register()
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)
    model = service.client.job(job_id).fine_tuned_model or ""

    assert "nightly" in run(service, block("schedules.md", "make"))
    looked = run(service, block("schedules.md", "look"))
    assert "is running" in looked
    assert [schedule.name for schedule in service.client.schedules()] == ["nightly"]
    assert "daily" in run(service, block("schedules.md", "late"))

    service.client.set_alias("support", model)
    assert model in run(service, block("schedules.md", "alias").replace("ft:my-model:luthier:0a1b2c3d", model))

    code = block("schedules.md", "python", "python").replace("http://127.0.0.1:8420", service.url)
    exec(compile(code, "schedules.md", "exec"), {})
    assert {schedule.name: schedule.enabled for schedule in service.client.schedules()} == {
        "nightly": True,
        "daily": True,
        "hourly": False,
    }


def test_the_page_on_webhooks(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with receiving() as receiver:
        printed = run(service, block("webhooks.md", "webhooks").replace("https://example.com/", f"{receiver.url}/"))
        secrets = re.findall(r"whsec_\S+", printed)
        assert len(secrets) == 2
        job_id = service.submit()
        service.client.cancel(job_id)
        wait_until(lambda: bool(receiver.got))
    names: dict[str, Any] = {}
    exec(compile(block("webhooks.md", "unwrap", "python").replace("whsec_…", secrets[0]), "webhooks.md", "exec"), names)
    assert isinstance(names["client"], OpenAI)
    [(headers, body)] = receiver.got
    names["receive"](body, headers)
    names["client"].close()
    assert capsys.readouterr().out == f"fine_tuning.job.cancelled {job_id}\n"


def test_the_page_on_webhooks_says_when_events_are_sent_again() -> None:
    def words(seconds: float) -> str:
        for unit, size in (("h", 3600), ("min", 60)):
            if seconds >= size:
                return f"{seconds / size:g} {unit}"
        return f"{seconds:g} s"

    *all_but, last = [words(wait.total_seconds()) for wait in WAITS]
    page = " ".join((DOCS / "webhooks.md").read_text().split())
    assert f"after {', '.join(all_but)} and {last}, and then gives up" in page
