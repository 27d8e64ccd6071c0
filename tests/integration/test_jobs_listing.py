"""The list of jobs by tag and by schedule: over HTTP, from Python, on the command line and on its page."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from openai import OpenAI
from typer.testing import CliRunner

from luthier.cli import app
from luthier.errors import NotFound, UserError
from tests.integration.service_harness import Service, serving, sums


class Listed(NamedTuple):
    """Three jobs: one tagged german, one german and `a & b`, and one of the schedule `nightly`."""

    service: Service
    german: str
    both: str
    scheduled: str
    schedule_id: str


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listed]:
    with serving(tmp_path_factory.mktemp("listing")) as service:
        service.add_model()
        client, file, search = service.client, service.upload(sums()), {"trials": 2, "confirmations": 0}
        german, both = (client.create_job(file, search=search).id for _ in range(2))
        client.describe(german, tags=["german"])
        client.describe(both, tags=["german", "a & b"])
        schedule = client.create_schedule("nightly", "0 0 1 1 *", {"training_file": file, "search": search})
        scheduled = client.run_schedule(schedule.id).job
        assert scheduled is not None
        yield Listed(service, german, both, scheduled, schedule.id)


def ids(text: str) -> list[str]:
    """Of the jobs on a page, in their order."""
    return re.findall(r'id="compare-([^"]+)"', text)


def test_jobs_are_listed_by_tags_and_by_schedule(listed: Listed) -> None:
    client = listed.service.client
    assert [job.id for job in client.jobs(tags=["german"])] == [listed.both, listed.german]
    assert [job.id for job in client.jobs(tags=["a & b", "german"])] == [listed.both]
    assert [job.id for job in client.jobs(schedule_id=listed.schedule_id)] == [listed.scheduled]
    assert client.jobs(tags=["german"], schedule_id=listed.schedule_id) == []
    assert len(client.jobs()) == 3


def test_pages_go_on_within_the_tag(listed: Listed) -> None:
    first = listed.service.http.get("/v1/fine_tuning/jobs", params={"tag": "german", "limit": 1}).json()
    assert ([job["id"] for job in first["data"]], first["has_more"]) == ([listed.both], True)
    following = {"tag": "german", "limit": 1, "after": listed.both}
    second = listed.service.http.get("/v1/fine_tuning/jobs", params=following).json()
    assert ([job["id"] for job in second["data"]], second["has_more"]) == ([listed.german], False)


def test_openais_client_passes_the_tag_on(listed: Listed) -> None:
    with OpenAI(base_url=f"{listed.service.url}/v1", api_key="none") as client:
        found = client.fine_tuning.jobs.list(limit=1, extra_query={"tag": "german"})
        assert [job.id for job in found] == [listed.both, listed.german]


def test_an_option_that_there_is_not_is_named_with_those_that_there_are(listed: Listed) -> None:
    answer = listed.service.http.get("/v1/fine_tuning/jobs", params={"schedule": "nightly"})
    assert answer.status_code == 400
    assert "expected after, limit, tag, schedule_id and metadata[key]" in answer.json()["error"]["message"]
    with pytest.raises(UserError, match="tag"):
        listed.service.client.jobs(tags=[""])


def test_the_command_line_lists_by_tag_and_by_the_name_of_a_schedule(listed: Listed) -> None:
    def found(*options: str) -> list[str]:
        result = CliRunner().invoke(app, ["jobs", *options, "--json", "--server", listed.service.url])
        if isinstance(result.exception, NotFound):
            raise result.exception
        return [job["id"] for job in json.loads(result.stdout)]

    assert found("--tag", "german", "--tag", "a & b") == [listed.both]
    assert found("--schedule", "nightly") == [listed.scheduled]
    assert found("--schedule", listed.schedule_id) == [listed.scheduled]
    with pytest.raises(NotFound, match=r"\'weekly\'.*\bnightly\b"):
        found("--schedule", "weekly")


def test_the_page_of_jobs_and_its_tables_show_those_with_a_tag_or_of_a_schedule(listed: Listed) -> None:
    http = listed.service.http
    everything = http.get("/").text
    assert ids(everything) == [listed.scheduled, listed.both, listed.german]
    assert 'href="/?tag=a%20%26%20b"' in everything
    german = http.get("/", params={"tag": "german", "schedule_id": ""}).text
    assert ids(german) == [listed.both, listed.german]
    assert "<option selected>german</option>" in german
    assert 'href="/jobs.csv?tag=german"' in german
    assert [job["id"] for job in http.get("/jobs.json?tag=german").json()] == [listed.both, listed.german]
    assert ids(http.get("/", params={"schedule_id": listed.schedule_id}).text) == [listed.scheduled]
    assert f'href="/?schedule_id={listed.schedule_id}"' in http.get(f"/schedules/{listed.schedule_id}").text
    assert "No jobs match" in http.get("/?tag=french").text
    assert http.get("/", params={"tag": "\0"}).status_code == 400
