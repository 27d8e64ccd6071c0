"""Nothing that a model's folder holds makes the service fail, wait for long, or grow."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

import psutil
import pytest

from luthier.dataset.profile import ESTIMATE
from tests import broken_models
from tests.broken_models import BROKEN, EXPLODING
from tests.integration.service_harness import TINY_CHAT, Service
from tests.live import running

pytest_plugins = ("tests.integration.service_fixtures",)

MOST_GROWTH: Final = 200 * 2**20  # bytes of the service's process
SOME: Final = (
    "a thousand million layers",
    "a header that is nested without end",
    "a config that is nested without end",
    "a template that is a pipe",
    "a config that is a link to itself",
    "a tokenizer that is cut off",
    "code that comes with the model",
)


def _refusal(service: Service, folder: Path) -> str:
    answer = service.http.post("/v1/models", json={"name": "broken", "source": str(folder)}, timeout=120)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "source")
    return str(error["message"])


@pytest.mark.parametrize("name", [*SOME, *(pytest.param(n, marks=pytest.mark.slow) for n in BROKEN if n not in SOME)])
def test_a_broken_folder_is_a_fault_of_the_request(name: str, shared: Service, tmp_path: Path) -> None:
    broken, _ = BROKEN[name]
    assert str(tmp_path) in _refusal(shared, broken_models.copy(tmp_path / "model", broken))
    assert [model.id for model in shared.client.models()] == ["tiny-chat"]


def test_exploding_templates_neither_block_nor_fill_the_service(shared: Service, tmp_path: Path) -> None:
    """The service answers other requests meanwhile, and its own process does not grow."""
    process = psutil.Process()
    before, peak, waits = process.memory_info().rss, 0, []
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, process.memory_info().rss)
            started = time.monotonic()
            assert shared.http.get("/healthz").status_code == 200
            waits.append(time.monotonic() - started)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number, name in enumerate(("a loop without end", "a text that doubles", "brackets without end")):
            change = broken_models.template(EXPLODING[name])
            assert "template" in _refusal(shared, broken_models.copy(tmp_path / str(number), change))
    finally:
        done.set()
        watcher.join()
    assert peak - before < MOST_GROWTH
    assert max(waits) < 5
    assert not running("workers.import_model.inspect_model")


@pytest.mark.parametrize("source", ["/" + "x" * 5000, "/x\0y", "/" + "y/" * 3000, "/dev/zero", "/proc/self/mem"])
def test_a_path_that_the_system_does_not_take_is_a_fault_of_the_request(source: str, shared: Service) -> None:
    answer = shared.http.post("/v1/models", json={"name": "broken", "source": source})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "source")


def test_a_registered_model_may_break_later(bare: Service, tmp_path: Path) -> None:
    """An upload counts tokens with its tokenizer; if that cannot be loaded any more, they are estimated."""
    folder = broken_models.copy(tmp_path / "model", lambda folder: None)
    bare.client.add_model("tiny", str(folder))
    rows = [{"text": f"Line {number}."} for number in range(60)]
    counted = bare.client.dataset(bare.upload(rows))
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}')
    estimated = bare.client.dataset(bare.upload(rows))
    assert (counted.counted_by, estimated.counted_by) == ("tiny", ESTIMATE)
    assert str(folder) in _refusal(bare, folder)
    (folder / "tokenizer.json").write_bytes((TINY_CHAT / "tokenizer.json").read_bytes())
    assert bare.client.dataset(bare.upload(rows)).counted_by == "tiny"
