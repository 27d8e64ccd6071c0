"""Pages and exports show whatever metrics are declared, and the scripts get the curves' labels from the page."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator

import pytest

from luthier import metrics as registry
from luthier.metrics import CURVES, METRICS, MetricSpec
from tests.integration.service_harness import FakeWorker, Service, serving

ANOTHER = MetricSpec(  # of a number that the store has and that no page shows as a metric
    name="tokens", label="scored tokens", description="The number of target tokens scored.", lower_is_better=False
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A job that has ended."""
    with serving(tmp_path_factory.mktemp("metrics")) as service:
        service.add_model()
        worker = FakeWorker(service.http)
        worker.register()
        job_id = service.submit(search={"trials": 3, "confirmations": 0})
        assert worker.work_until_ended(service.client, job_id) == "succeeded"
        yield service, job_id


PAGES = [
    "/jobs/{job}",
    "/jobs/{job}?sort=tokens&order=descending",
    "/jobs/compare?jobs={job}",
    "/jobs/{job}/trials/1",
    "/models",
]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_a_new_metric_that_is_declared(
    path: str, job: tuple[Service, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, job_id = job
    monkeypatch.setattr(registry, "METRICS", (*METRICS, ANOTHER))
    page = service.http.get(path.format(job=job_id))
    assert page.status_code == 200
    assert ANOTHER.label in page.text.lower()


def test_the_table_cannot_be_sorted_by_what_is_not_declared(job: tuple[Service, str]) -> None:
    service, job_id = job
    assert service.http.get(f"/jobs/{job_id}?sort=tokens").status_code == 400


def test_an_export_has_a_column_for_a_new_metric_after_those_it_had(
    job: tuple[Service, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, job_id = job
    before = columns(service, job_id)
    assert [name for name in before if name in ("perplexity", "bits_per_byte", "reward")] == [
        "perplexity",
        "bits_per_byte",
        "reward",
    ]
    monkeypatch.setattr(registry, "METRICS", (*METRICS, ANOTHER))
    after = columns(service, job_id)
    assert [name for name in after if name != "tokens"] == before
    assert after.index("tokens") == after.index("reward") + 1


def columns(service: Service, job_id: str) -> list[str]:
    return list(next(csv.reader(io.StringIO(service.http.get(f"/jobs/{job_id}/trials.csv").text))))


@pytest.mark.parametrize("path", ["/jobs/{job}", "/jobs/{job}/trials/1"])
def test_the_scripts_get_the_curves_from_the_page(path: str, job: tuple[Service, str]) -> None:
    service, job_id = job
    found = re.search(r'data-curves="([^"]*)"', service.http.get(path.format(job=job_id)).text)
    assert found is not None
    told = json.loads(html.unescape(found[1]))
    assert [(curve["name"], curve["label"]) for curve in told] == [(curve.name, curve.label) for curve in CURVES]
