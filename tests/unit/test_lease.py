"""What a worker does when the service pauses a job: it stops between two steps, but not while it judges."""

from pathlib import Path
from typing import Any, Literal

import pytest

from luthier.errors import Interrupted, Stopped
from luthier.worker_protocol import Assignment, Directive, Heartbeat
from tests.integration.store_samples import NOW, design, job_record
from workers.lease import Lease
from workers.service_client import ServiceClient


class Service(ServiceClient):
    action: Literal["continue", "stop", "pause", "wrap_up"] = "continue"
    wrap_up_at: float | None = None

    def heartbeat(self, trial_id: str, heartbeat: Heartbeat) -> Directive:
        ends = {"reason": "cancelled by job-b", "wrap_up_at": self.wrap_up_at}
        return Directive(action=self.action, expires_at=NOW, **ends)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service("http://localhost", tmp_path)


@pytest.fixture
def lease(service: Service, tiny_entry: Any) -> Lease:
    job = job_record()
    about = {"trial_id": "trial-a", "job_id": job.id, "number": 1, "owner": "worker-a", "fence": 1, "seed": 1}
    given = {"design": design(), "base": tiny_entry, "train": job.train, "judge": job.judge, "checkpoint": None}
    return Lease(service, Assignment(**about, **given, device_seconds=0.0), lease_seconds=30)


def test_training_stops_and_goes_on_when_the_job_is_resumed_in_time(service: Service, lease: Lease) -> None:
    lease.beat()
    lease.check()
    service.action = "pause"
    lease.beat()
    with pytest.raises(Interrupted, match="paused"):
        lease.check()
    service.action = "continue"
    lease.beat()
    lease.check()


def test_what_is_trained_is_judged_and_exported_before_the_pause(service: Service, lease: Lease) -> None:
    service.action = "pause"
    lease.beat()
    lease.trained()
    lease.check()
    service.action = "stop"
    lease.beat()
    with pytest.raises(Stopped, match="job-b"):
        lease.check()


def test_training_is_told_that_the_budget_ends_and_may_go_on_to_its_result(service: Service, lease: Lease) -> None:
    lease.beat()
    assert not lease.wrap_up
    service.action = "wrap_up"
    lease.beat()
    assert lease.wrap_up
    lease.check()


@pytest.mark.parametrize(("seconds", "ends"), [(0.0, True), (1000.0, False)])
def test_training_ends_at_the_told_time_without_another_heartbeat(
    seconds: float, ends: bool, service: Service, lease: Lease
) -> None:
    service.wrap_up_at = seconds
    lease.beat()
    assert lease.wrap_up == ends
    lease.check()


@pytest.mark.parametrize(("seconds", "ends"), [(None, False), (0.0, True), (1000.0, False)])
def test_the_time_at_which_training_ends_is_known_before_the_first_heartbeat(
    seconds: float | None, ends: bool, service: Service, lease: Lease
) -> None:
    assignment = lease.assignment.model_copy(update={"wrap_up_at": seconds})
    begun = Lease(service, assignment, lease_seconds=30)
    assert begun.wrap_up == ends
    begun.beat()
    assert not begun.wrap_up, "the service has just said that it may go on"
