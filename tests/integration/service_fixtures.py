"""Fixtures of the service's tests; test modules load this as a plugin."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.service_harness import FakeWorker, Service, serving


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Service]:
    """A service with an empty home."""
    with serving(tmp_path / "home") as service:
        yield service


@pytest.fixture
def service(bare: Service) -> Service:
    """A service with one base model, `tiny-chat`."""
    bare.add_model()
    return bare


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one base model for all tests of a module that do not depend on an empty store."""
    with serving(tmp_path_factory.mktemp("shared") / "home") as service:
        service.add_model()
        yield service


@pytest.fixture
def worker(service: Service) -> FakeWorker:
    """A registered worker of that service."""
    worker = FakeWorker(service.http)
    worker.register()
    return worker
