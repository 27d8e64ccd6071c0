"""A real server on a free port, and a worker that speaks the protocol but trains nothing."""

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from luthier.client import Client
from luthier.settings import Settings
from luthier.trial import RUNGS, Metrics, Point, RowScores
from luthier.updates import AdapterUpdate, VirtualTokens
from luthier.worker_protocol import (
    Artifact,
    Assignment,
    Device,
    Finished,
    Heartbeat,
    Hello,
    Judged,
    Keep,
    RungReached,
    RungVerdict,
    Welcome,
)
from service.app import create_app
from service.background import Ticker
from service.context import Context
from tests import migrated, probed

TINY_CHAT = Path(__file__).parents[1] / "models" / "tiny-chat"
PATIENCE_SECONDS = 60.0


@dataclass
class Service:
    """One run of the service on a home that outlives it."""

    url: str
    context: Context
    ticker: Ticker
    http: httpx.Client
    client: Client
    app: FastAPI

    def add_model(self, name: str = "tiny-chat") -> None:
        self.client.add_model(name, str(TINY_CHAT))

    def upload(self, rows: list[dict[str, Any]], name: str = "train.jsonl") -> str:
        content = "".join(json.dumps(row) + "\n" for row in rows)
        answer = self.http.post("/v1/files", files={"file": (name, content)}, data={"purpose": "fine-tune"})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def submit(self, rows: list[dict[str, Any]] | None = None, **body: Any) -> str:
        """A job on `rows` (sums, if left out); answers with its id."""
        job = self.client.create_job(self.upload(rows or sums()), **body)
        return job.id

    def messages(self, job_id: str) -> list[str]:
        """What the job's events say, the first one first."""
        return [event.message for event in reversed(self.client.events(job_id))]


@contextmanager
def serving(home: Path, **settings: Any) -> Iterator[Service]:
    """Run the service in a thread; all else is real. It looks after its jobs often, so that no test waits long."""
    configured = Settings(home=home, **{"tick_seconds": 0.05, **settings})
    if configured.database_url is None:
        migrated.put(home / "luthier.db")
    probed.put(home)
    app = create_app(configured)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, http="h11", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started, "the service did not start"
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as http, Client(url) as client:
                yield Service(
                    url=url,
                    context=app.state.context,
                    ticker=app.state.loops[0],
                    http=http,
                    client=client,
                    app=app,
                )
        finally:
            server.should_exit = True
            thread.join()


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def sums(count: int = 60) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {n} + {n}?", "completion": f"It is {2 * n}."} for n in range(count)]


def preferences(count: int = 60) -> list[dict[str, Any]]:
    return [{"prompt": f"Say {n}.", "chosen": f"{n}, gladly", "rejected": "no"} for n in range(count)]


def prompts(count: int = 60) -> list[dict[str, Any]]:
    return [{"prompt": f"Name a number above {n}.", "bound": str(n)} for n in range(count)]


def unpaired(count: int = 60) -> list[dict[str, Any]]:
    return [{"prompt": f"Say {n}.", "completion": f"{n}, gladly", "label": n % 2 == 0} for n in range(count)]


def texts(count: int = 60) -> list[dict[str, Any]]:
    return [{"text": f"The number after {n} is {n + 1}."} for n in range(count)]


def metrics(bits_per_byte: float, reward: float | None = 0.5) -> Metrics:
    return Metrics(
        perplexity=2.0**bits_per_byte,
        bits_per_byte=bits_per_byte,
        reward=reward,
        reward_name=None if reward is None else "text_similarity",
        tokens=100,
        rows=6,
    )


def row_scores(scored: Metrics, general: float = 1.0) -> RowScores:
    """Rows that the metrics could be the totals of: some easier, some harder, around the mean."""
    share, each = [0.5 + i / 5 for i in range(6)], scored.bits_per_byte * math.log(2)
    rewards = None if scored.reward is None else tuple(scored.reward + (i - 2.5) / 20 for i in range(6))
    return RowScores(
        nll=tuple(each * 20.0 * part for part in share),
        tokens=(20,) * 6,
        bytes=(20.0,) * 6,
        reward=rewards,
        general_bits_per_byte=general,
    )


def by_number(assignment: Assignment) -> Metrics:
    """The untuned base is worst, and each trial is a little better than the one before."""
    return metrics(3.0 - assignment.number / 100)


@dataclass
class FakeWorker:
    """Says what a worker says, at once. `score` is its judge."""

    http: httpx.Client
    name: str = "fake"
    score: Callable[[Assignment], Metrics] = by_number
    seconds: float = 1.0
    memory_bytes: int = 2**30
    id: str = ""
    done: list[Assignment] = field(default_factory=list)

    def register(self) -> Welcome:
        device = Device(kind="cpu", name="pretended", memory_bytes=self.memory_bytes)
        hello = Hello(name=self.name, device=device, pid=1)
        welcome = Welcome.model_validate(self.post("/v1/workers", hello).json())
        self.id = welcome.worker_id
        return welcome

    def lease(self) -> Assignment | None:
        answer = self.post(f"/v1/workers/{self.id}/lease")
        return None if answer.status_code == 204 else Assignment.model_validate(answer.json())

    def take(self) -> Assignment:
        """A lease, as soon as there is work."""
        found: list[Assignment] = []

        def asked() -> bool:
            assignment = self.lease()
            found.extend([assignment] if assignment else [])
            return bool(found)

        wait_until(asked)
        return found[0]

    def work(self, assignment: Assignment) -> None:
        """Pretend to train, then judge, export and finish; or pause at a rung where the service says so.

        If it is to wrap up, it ends before it reaches a rung.
        """
        directive = self.heartbeat(assignment, train_loss=1.0)
        if directive["action"] != "wrap_up" and not self.climb(assignment):
            self.finish(assignment, outcome="waiting")
            return
        claim = self.claim(assignment)
        scored = self.score(assignment)
        judged = self.post(
            f"/v1/trials/{assignment.trial_id}/judged", Judged(**claim, metrics=scored, device_seconds=self.seconds)
        )
        keep = Keep.model_validate(judged.json())
        artifacts = self.export(assignment) if keep.keep and assignment.design.stages else ()
        self.finish(
            assignment,
            outcome="complete",
            metrics=scored,
            test_metrics=scored if keep.test else None,
            test_scores=row_scores(scored) if keep.test else None,
            artifacts=artifacts,
            trained_tokens=1000,
        )
        self.done.append(assignment)

    def climb(self, assignment: Assignment) -> bool:
        """Report the rungs up to the goal, and those after it as long as the trial goes on."""
        goal = assignment.goal
        for rung in range(len(RUNGS)):
            if goal is None:
                break
            verdict = self.reach(assignment, rung)
            goal = verdict.goal
            if verdict.action == "pause":
                return False
        return True

    def reach(self, assignment: Assignment, rung: int) -> RungVerdict:
        report = RungReached(
            **self.claim(assignment),
            rung=rung,
            share=RUNGS[rung],
            stage=0,
            step=rung + 1,
            metrics=self.score(assignment),
        )
        return RungVerdict.model_validate(self.post(f"/v1/trials/{assignment.trial_id}/rung", report).json())

    def heartbeat(self, assignment: Assignment, *, seconds: float | None = None, **values: float) -> dict[str, Any]:
        now = datetime.now(UTC)
        points = tuple(Point(stage=0, step=1, name=name, value=value, at=now) for name, value in values.items())
        beat = Heartbeat(**self.claim(assignment), device_seconds=seconds or self.seconds, points=points)
        directive: dict[str, Any] = self.post(f"/v1/trials/{assignment.trial_id}/heartbeat", beat).json()
        return directive

    def export(self, assignment: Assignment) -> tuple[Artifact, ...]:
        """A merged model, and an adapter where the update makes one. The tokenizer is the same for all trials."""
        own = {"model.safetensors": self.put(f"weights of {assignment.trial_id}"), "tokenizer.json": self.put("tokens")}
        merged = Artifact(kind="merged", files=own, bytes=100)
        if not isinstance(assignment.design.stages[0].update, AdapterUpdate):
            return (merged,)
        files = {"adapter_model.safetensors": self.put(f"adapter of {assignment.trial_id}")}
        adapter = Artifact(kind="adapter", files=files, bytes=50)
        return (adapter,) if isinstance(assignment.design.stages[0].update, VirtualTokens) else (merged, adapter)

    def put(self, content: str) -> str:
        answer = self.http.put("/v1/blobs", content=iter([content.encode()]))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["digest"])

    def finish(self, assignment: Assignment, **report: Any) -> httpx.Response:
        finished = Finished(**self.claim(assignment), **{"device_seconds": self.seconds, **report})
        return self.post(f"/v1/trials/{assignment.trial_id}/finish", finished)

    def claim(self, assignment: Assignment) -> dict[str, Any]:
        return {"owner": assignment.owner, "fence": assignment.fence}

    def post(self, path: str, message: Any = None) -> httpx.Response:
        answer = self.http.post(path, json=None if message is None else message.model_dump(mode="json"))
        assert answer.status_code < 300, f"{path}: {answer.text}"
        return answer

    def work_until_ended(self, client: Client, job_id: str) -> str:
        """Take leases until the job has ended; answers with its last status."""

        def ended() -> bool:
            assignment = self.lease()
            if assignment is not None:
                self.work(assignment)
            return client.job(job_id).status.terminal

        wait_until(ended)
        return client.job(job_id).status.value
