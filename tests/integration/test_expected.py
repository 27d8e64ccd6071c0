"""Creation says what a budget is expected to buy, and warns where it is too small."""

import json
from pathlib import Path

from tests.commands import run
from tests.integration.service_harness import FakeWorker, Service, sums

pytest_plugins = ("tests.integration.service_fixtures",)


def created(service: Service, **search: object) -> dict[str, object]:
    body = {"training_file": service.upload(sums()), "search": search}
    answer = service.http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_a_new_job_says_what_it_is_expected_to_do(service: Service, worker: FakeWorker) -> None:
    job = created(service, trials=12)
    found = job["luthier"]["expected"]
    assert (found["designs"], found["finished"], found["repeats"]) == (10, 3, 8)
    assert (found["workers"], found["device"], found["calibrated_from"]) == (1, "pretended", 0)
    assert found["first_share"] < 1
    assert found["warning"] is None
    assert service.client.job(job["id"]).luthier.expected is None, "costs are estimated once"


def test_a_budget_for_the_baselines_alone_is_warned_of_at_creation(service: Service) -> None:
    job = created(service, trials=12, device_seconds=0.01)
    found = job["luthier"]["expected"]
    assert (found["designs"], found["workers"]) == (0, 0)
    assert found["warning"] is not None
    levels = [event.level for event in service.client.events(job["id"]) if event.message == found["warning"]]
    assert levels == ["warn"]


def test_a_budget_below_the_baselines_is_warned_of_where_nothing_else_is_asked_for(service: Service) -> None:
    found = created(service, trials=2, device_seconds=0.01)["luthier"]["expected"]
    assert found["designs"] == 0
    assert "two baselines" in found["warning"]


def test_a_dry_run_creates_no_job(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in sums()))
    done = run(
        "submit", str(file), "--dry-run", "--json", "--trials", "9", "--seconds", "0.01", "--server", service.url
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["expected"]
    assert found["designs"] == 0
    assert found["warning"] is not None
    assert service.client.jobs() == []
    plain = run("submit", str(file), "--trials", "9", "--server", service.url)
    assert plain.returncode == 0
    assert "7 designs" in plain.stdout
