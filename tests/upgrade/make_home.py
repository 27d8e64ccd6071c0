"""Make a home of one version of Luthier, for the test that a later version opens it.

    PYTHONPATH=CHECKOUT python -P tests/upgrade/make_home.py CHECKOUT OUT.tar.gz

CHECKOUT is a checkout of the version that makes the home. A real service with a real worker runs there. The archive
holds the home without caches and full model weights, and `expected.json`: what the API of that version returned.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import httpx

FAST: Final = {"LUTHIER_LEASE_SECONDS": "5", "LUTHIER_CHECKPOINT_SECONDS": "0.3", "LUTHIER_POLL_SECONDS": "0.2"}
SOURCE: Final = "/models/tiny-chat"  # stored in place of the folder that the model was read from
SMALL: Final = 2**16  # bytes of a blob that is always kept
NEEDED: Final = """
    SELECT digest FROM checkpoint_blobs
    UNION SELECT digest FROM artifact_files WHERE kind = 'adapter' AND trial_id IN (SELECT trial_id FROM alias_versions)
"""
JOBS: Final = "/v1/fine_tuning/jobs"
ANIMALS: Final = {"cat": "fish", "dog": "bones", "horse": "hay", "owl": "mice", "frog": "flies", "bee": "honey"}
PATIENCE_SECONDS: Final = 300.0


def rows(count: int) -> str:
    """Lines of prompts and completions with something to learn."""
    known = list(ANIMALS.items())
    pairs = (known[i % len(known)] for i in range(count))
    lines = (
        {"prompt": f"{i}. What does the {animal} eat?", "completion": f"The {animal} eats {food}."}
        for i, (animal, food) in enumerate(pairs)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def wait_for(look: Callable[[], Any]) -> Any:
    """The first true value of `look`."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    raise TimeoutError("timed out")


class Home:
    """A running service on a new home."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.folder = folder
        self.checkout = checkout
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_SECONDS)

    def luthier(self, *arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "luthier", *arguments, "--home", str(self.folder)]
        return subprocess.run(command, cwd=self.checkout, check=True, capture_output=True, text=True).stdout.strip()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the service without workers."""
        serve = ("serve", "--home", str(self.folder), "--port", str(self.port), "--workers", "0")
        with self.process(*serve):
            wait_for(self.answers)
            yield

    @contextmanager
    def process(self, *arguments: str) -> Iterator[None]:
        command = [sys.executable, "-P", "-m", "luthier", *arguments]
        with (self.folder.parent / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.checkout, env=os.environ | FAST, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)

    def answers(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **params: Any) -> Any:
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.http.post(path, json=body, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, file: str, search: dict[str, Any], **more: Any) -> str:
        body = {"model": "tiny-chat", "training_file": file, "seed": 7, "search": search, **more}
        return str(self.post(JOBS, body)["id"])

    def ended(self, job: str) -> str:
        """Wait for the end of a job; returns its status."""
        terminal = ("succeeded", "failed", "cancelled")
        return str(wait_for(lambda: next((s for s in [self.get(f"{JOBS}/{job}")["status"]] if s in terminal), None)))

    def training(self, job: str, number: int) -> Any:
        """Whether this trial of the job has trained for some steps."""
        trials = self.get(f"{JOBS}/{job}/trials")["data"]
        begun = [one["id"] for one in trials if one["state"] == "leased" and one["number"] == number]
        return begun and len(self.get(f"{JOBS}/{job}/trials/{begun[0]}/points")["data"]) > 20


def fill(home: Home, hook: str) -> None:
    """One of each thing that a home holds."""
    home.post("/v1/models", {"name": "tiny-chat", "source": str(home.checkout / "tests" / "models" / "tiny-chat")})
    home.post("/v1/webhook_endpoints", {"url": hook, "events": ["fine_tuning.job.succeeded"]})
    file = home.post("/v1/files", files={"file": ("animals.jsonl", rows(240))}, data={"purpose": "fine-tune"})["id"]
    lora = {"update": ["lora"], "rank": [4]}
    attention = lora | {"placement": ["attention"]}

    searched = home.submit(
        file, {"trials": 8, "finalists": 2, "confirmations": 1, "early_finish": False, "pin": lora}, suffix="searched"
    )
    assert home.ended(searched) == "succeeded"
    notes = {"notes": "the first one", "tags": ["kept", "animals"]}
    assert home.http.patch(f"{JOBS}/{searched}", json=notes).status_code == 200
    model = home.get(f"{JOBS}/{searched}")["fine_tuned_model"]
    home.post("/v1/aliases", {"name": "champion", "model": model})
    home.post("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "Hello"}]})

    spent = home.submit(file, {"trials": 3, "device_seconds": 0.2, "pin": lora})
    assert home.ended(spent) == "failed"

    schedule = home.post(
        "/v1/schedules",
        {
            "name": "yearly",
            "cron": "0 0 1 1 *",
            "job": {"training_file": file, "search": {"trials": 2, "finalists": 1, "confirmations": 0, "pin": lora}},
        },
    )["id"]
    scheduled = home.post(f"/v1/schedules/{schedule}/run")["job"]
    home.post(f"/v1/schedules/{schedule}/run")  # while the first one runs
    assert home.ended(scheduled) == "succeeded"
    assert home.http.patch(f"/v1/schedules/{schedule}", json={"enabled": False}).status_code == 200

    cancelled = home.submit(file, {"trials": 6, "pin": lora})
    wait_for(lambda: home.training(cancelled, 1))
    home.post(f"{JOBS}/{cancelled}/cancel")

    paused = home.submit(file, {"trials": 3, "finalists": 1, "confirmations": 0, "pin": attention})
    wait_for(lambda: home.training(paused, 2))
    home.post(f"{JOBS}/{paused}/pause")
    wait_for(lambda: home.get(f"{JOBS}/{paused}")["luthier"]["trials_running"] == 0)
    wait_for(lambda: all(sent["state"] == "delivered" for sent in deliveries(home)))


def deliveries(home: Home) -> list[Any]:
    [endpoint] = home.get("/v1/webhook_endpoints")["data"]
    return list(home.get(f"/v1/webhook_endpoints/{endpoint['id']}/deliveries")["data"])


def seen(home: Home, key: str) -> dict[str, Any]:
    """What the API returns about the home."""
    found: dict[str, Any] = {"key": key, "jobs": {}}
    for kind in ("files", "schedules", "aliases", "webhook_endpoints", "keys"):
        found[kind] = home.get(f"/v1/{kind}")["data"]
    found["models"] = [{**model, "source": SOURCE} for model in home.get("/v1/models")["data"] if model["facts"]]
    found["deliveries"] = deliveries(home)
    found["runs"] = home.get(f"/v1/schedules/{found['schedules'][0]['id']}/runs")["data"]
    for job in home.get(JOBS, limit=100)["data"]:
        at = f"{JOBS}/{job['id']}"
        trials = home.get(f"{at}/trials", limit=100)["data"]
        of_trials = [f"{at}/trials/{trial['id']}" for trial in trials]
        best = home.http.get(f"{at}/best")
        found["jobs"][job["id"]] = {
            "job": job,
            "trials": trials,
            "points": [len(home.get(f"{trial}/points")["data"]) for trial in of_trials],
            "log": [home.get(f"{trial}/log")["data"] for trial in of_trials],
            "samples": [home.get(f"{trial}/samples")["data"] for trial in of_trials],
            "checkpoints": home.get(f"{at}/checkpoints", limit=100)["data"],
            "events": home.get(f"{at}/events", limit=100)["data"],
            "report": home.get(f"{at}/report", format="json"),
            "best": best.json() if best.status_code == 200 else None,
        }
    return found


def pack(folder: Path, expected: dict[str, Any], archive: Path) -> None:
    """Write the home without caches and without large blobs, except checkpoints and the adapter of the alias."""
    with sqlite3.connect(folder / "luthier.db") as database:
        database.execute("UPDATE models SET source = ?", (SOURCE,))
        needed = {row[0] for row in database.execute(NEEDED)}
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    blobs = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
    blobs = [path for path in blobs if path.stat().st_size <= SMALL or path.name in needed]
    with tarfile.open(archive, "w:gz") as tar:
        for path in (folder / "luthier.db", folder / "secret", *sorted(blobs)):
            tar.add(path, path.relative_to(folder), filter=_anonymous)
        content = json.dumps(expected, indent=1).encode()
        entry = tarfile.TarInfo("expected.json")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


class Receiver(BaseHTTPRequestHandler):
    """Accepts every delivery."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()


def main(checkout: Path, archive: Path) -> None:
    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=receiver.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "home"
        folder.mkdir()
        home = Home(folder, checkout)
        server, cache = str(home.http.base_url), str(Path(work) / "cache")
        try:
            with home.serving(), home.process("worker", "--server", server, "--name", "builder", "--cache", cache):
                fill(home, f"http://127.0.0.1:{receiver.server_port}/hook")
            gone = home.luthier("keys", "create", "gone", "--scope", "read", "--json")
            home.luthier("keys", "revoke", json.loads(gone)["id"])
            key = home.luthier("keys", "create", "me", "--scope", "admin")
            home.http.headers["Authorization"] = f"Bearer {key}"
            with home.serving():
                expected = seen(home, key)
        except Exception:
            shutil.copy(folder.parent / "log", archive.with_suffix(".log"))
            raise
        pack(folder, expected, archive)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
