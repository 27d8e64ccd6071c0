"""`luthier schedules` against a real service, in the process of the test."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from luthier.cli import app
from luthier.errors import LuthierError, NotFound, UserError
from tests.integration.service_harness import Service, serving, sums


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("schedules-cli")) as service:
        service.add_model()
        service.upload(sums(), "daily.jsonl")
        yield service


def command(service: Service, *arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments, "--server", service.url], env={"COLUMNS": "200"})
    if isinstance(result.exception, LuthierError):
        raise result.exception
    return result


def test_a_schedule_is_added_listed_run_stopped_and_removed(service: Service, tmp_path: Path) -> None:
    body = tmp_path / "job.json"
    body.write_text(json.dumps({"search": {"finalists": 1}, "suffix": "nightly"}))
    options = ["--newest", "daily.jsonl", "--zone", "Europe/Berlin", "--trials", "4", "--job", f"@{body}"]
    added = command(service, "schedules", "add", "nightly", "30 3 * * *", *options, "--alias", "support")
    assert "first run" in added.stdout
    [listed] = json.loads(command(service, "schedules", "list", "--json").stdout)
    assert listed["job"] == {
        "training_file": {"newest": "daily.jsonl"},
        "search": {"finalists": 1, "trials": 4},
        "suffix": "nightly",
    }
    assert (listed["time_zone"], listed["overlap"], listed["alias"]) == ("Europe/Berlin", "skip", "support")
    assert "nightly" in command(service, "schedules", "list").stdout

    assert "is running" in command(service, "schedules", "run", "nightly").stdout
    assert "is skipped: job ftjob-" in command(service, "schedules", "run", "nightly").stdout
    [skipped, running] = json.loads(command(service, "schedules", "runs", "nightly", "--json").stdout)
    assert (skipped["state"], running["state"]) == ("skipped", "running")
    assert "had not ended" in command(service, "schedules", "runs", listed["id"]).stdout

    assert "disabled" in command(service, "schedules", "disable", "nightly").stdout
    assert "disabled" in command(service, "schedules", "list").stdout
    assert "next run" in command(service, "schedules", "enable", "nightly").stdout
    assert "nightly" in command(service, "schedules", "remove", "nightly").stdout
    assert json.loads(command(service, "schedules", "list", "--json").stdout) == []


def test_lateness_and_what_is_made_up_for_are_options(service: Service) -> None:
    lateness = ["--misfire-grace-seconds", "900", "--catch-up", "all", "--catch-up-seconds", "7200"]
    options = ["--newest", "daily.jsonl", "--overlap", "queue", *lateness, "--json"]
    made = json.loads(command(service, "schedules", "add", "late", "0 0 1 1 *", *options).stdout)
    assert (made["misfire_grace_seconds"], made["catch_up"], made["catch_up_seconds"]) == (900.0, "all", 7200.0)
    with pytest.raises(UserError, match="misfire_grace_seconds"):
        command(service, "schedules", "add", "never", "0 0 1 1 *", "--misfire-grace-seconds", "-1")
    command(service, "schedules", "remove", "late")


def test_a_run_whose_job_cannot_be_created_exits_1(service: Service) -> None:
    command(service, "schedules", "add", "early", "0 0 * * *", "--newest", "none.jsonl")
    failed = command(service, "schedules", "run", "early")
    assert failed.exit_code == 1
    assert "'none.jsonl'" in failed.stdout


def test_a_schedule_that_is_not_there_is_named_with_those_that_are(service: Service) -> None:
    with pytest.raises(NotFound, match="'nightyl'"):
        command(service, "schedules", "run", "nightyl")


def test_a_file_and_the_newest_one_do_not_go_together(service: Service) -> None:
    with pytest.raises(UserError, match="--newest") as refused:
        command(service, "schedules", "add", "both", "0 0 * * *", __file__, "--newest", "daily.jsonl")
    assert refused.value.param == "FILE"
