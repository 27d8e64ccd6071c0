"""How a worker keeps its generation process: started when asked, ended when idle, replaced when it dies or hangs.

The process is a small script that speaks its language and has no model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from luthier.errors import LeaseLost
from luthier.worker_protocol import Answered, Artifact, Generation, Offer, Question, Said, Spoken, Weights, Welcome
from workers.inference import host as hosting
from workers.inference.host import Host
from workers.service_client import ServiceClient

SCRIPT = """
import json, os, pathlib, sys, time

def main():
    folder = sys.argv[sys.argv.index("--folder") + 1]
    for line in sys.stdin:
        order = json.loads(line)
        if order["kind"] == "cancel":
            continue
        what, number = order["question"]["prompt"], order["id"]
        if what == "die":
            os._exit(9)
        if what == "hang":
            print(json.dumps({"id": number, "text": "er"}), flush=True)
            time.sleep(600)
        if order["folder"]:
            what = ",".join(sorted(path.name for path in pathlib.Path(order["folder"]).iterdir()))
        for text in (f"{os.getpid()} ", what):
            print(json.dumps({"id": number, "text": text}), flush=True)
        print(json.dumps({"id": number, "answer": {"completion_tokens": 2}}), flush=True)

if __name__ == "__main__":
    main()
"""


class Service(ServiceClient):
    """Asks one question after another, and keeps what is said."""

    def __init__(self, cache: Path) -> None:
        super().__init__("http://localhost", cache)
        self.questions: list[Question] = []
        self.offers: list[str | None] = []
        self.said_to: dict[str, str] = {}
        self.ends: dict[str, Answered | None] = {}
        self.unwanted: set[str] = set()
        self.fetched: list[str] = []
        self._asked = 0

    def ask(self, prompt: str, artifact: Artifact | None = None) -> str:
        """The id of the question; returns at once."""
        self._asked += 1
        self.questions.append(Question(model="tiny", weights=Weights(artifact=artifact), prompt=prompt))
        return f"cmpl-{self._asked}"

    def offer(self, worker_id: str, offer: Offer) -> Generation | None:
        self.offers.append(offer.generates)
        if not self.questions:
            time.sleep(0.02)
            return None
        number = f"cmpl-{self._asked - len(self.questions) + 1}"
        return Generation(id=number, owner=worker_id, fence=1, question=self.questions.pop(0))

    def said(self, generation_id: str, said: Said) -> None:
        if generation_id in self.unwanted:
            raise LeaseLost("nobody wants it")
        self.said_to[generation_id] = self.said_to.get(generation_id, "") + said.text

    def spoken(self, generation_id: str, spoken: Spoken) -> None:
        self.ends[generation_id] = spoken.answer

    def fetch(self, digest: str, target: Path) -> None:
        self.fetched.append(digest)
        target.write_text(digest)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(hosting, "MODULE", "script")
    monkeypatch.setattr(hosting, "CANCEL_SECONDS", 0.3)
    return Service(tmp_path / "cache")


@pytest.fixture
def start(service: Service) -> Iterator[Callable[[float], Host]]:
    started: list[Host] = []

    def start(idle_seconds: float) -> Host:
        seconds = {"lease_seconds": 1.0, "checkpoint_seconds": 60.0, "poll_seconds": 1.0}
        host = Host(service, Welcome(worker_id="w", **seconds, generation_idle_seconds=idle_seconds), threads=1)
        host.start()
        started.append(host)
        return host

    yield start
    for host in started:
        host.stop()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def answered(service: Service, prompt: str, artifact: Artifact | None = None) -> list[str]:
    """The process that answered, and what it said."""
    number = service.ask(prompt, artifact)
    until(lambda: number in service.ends)
    end = service.ends[number]
    assert end is not None
    assert end.refusal is None
    return service.said_to[number].split()


def test_one_process_answers_one_question_after_another(service: Service, start: Callable[[float], Host]) -> None:
    start(300)
    until(lambda: len(service.offers) > 2)
    assert set(service.offers) == {None}, "none is started before somebody asks"
    (first, said), (second, again) = answered(service, "hello"), answered(service, "again")
    assert (said, again) == ("hello", "again")
    assert first == second
    assert service.offers[-1] == "tiny"


def test_weights_are_fetched_once_and_go_with_the_process(service: Service, start: Callable[[float], Host]) -> None:
    host = start(300)
    files = {"config.json": "aa", "model.safetensors": "bb", "reproduce/train.jsonl": "cc"}
    merged = Artifact(kind="merged", files=files, bytes=3)
    for _ in range(2):
        assert answered(service, "?", merged)[1] == "config.json,model.safetensors"
    assert sorted(service.fetched) == ["aa", "bb"]
    assert list(service.cache.iterdir())
    host.stop()
    assert not list(service.cache.iterdir())


def test_an_idle_process_ends_and_another_is_started(service: Service, start: Callable[[float], Host]) -> None:
    start(0.2)
    first, _ = answered(service, "hello")
    until(lambda: service.offers[-1] is None)
    assert not list(service.cache.iterdir())
    assert answered(service, "hello")[0] != first


def test_a_process_that_dies_is_reported_and_replaced(service: Service, start: Callable[[float], Host]) -> None:
    start(300)
    number = service.ask("die")
    until(lambda: number in service.ends)
    end = service.ends[number]
    assert end is not None
    assert end.refusal is not None
    assert end.refusal.code == "trial_failed"
    assert "code 9" in end.refusal.message
    assert answered(service, "hello")[1] == "hello"


def test_an_answer_is_cancelled_and_a_process_that_does_not_stop_is_ended(
    service: Service, start: Callable[[float], Host]
) -> None:
    start(300)
    number = service.ask("hang")
    until(lambda: service.said_to.get(number) == "er")
    service.unwanted.add(number)
    assert answered(service, "hello")[1] == "hello"
    assert number not in service.ends


def test_a_worker_that_stops_gives_the_question_back(service: Service, start: Callable[[float], Host]) -> None:
    host = start(300)
    number = service.ask("hang")
    until(lambda: number in service.said_to)
    threading.Thread(target=host.stop).start()
    until(lambda: number in service.ends)
    assert service.ends[number] is None
