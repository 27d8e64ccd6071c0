"""The agent's side of answering: a light thread that offers to answer, and starts a process that does when asked."""

from __future__ import annotations

import logging
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

from luthier.errors import BlobMissing, LeaseLost, LuthierError, TrialFailed
from luthier.worker_protocol import Answered, Artifact, Generation, Offer, Refusal, Said, Spoken, Welcome
from workers.inference.messages import Ask, Cancel, Told
from workers.service_client import ServiceClient

log = logging.getLogger(__name__)

AWAY_SECONDS = 5.0  # before the service is asked again after it could not be
CANCEL_SECONDS = 30.0  # that a cancelled answer may take to its next word
LEAVE_SECONDS = 5.0  # that a process may take to end
COMMAND = (sys.executable, "-P", "-m", "workers.inference.process")
RENEWALS = 10  # in the length of a lease


class Host:
    """Answers questions for one worker, one after another, beside what the worker trains.

    The process is started by the first question, and ended when nobody has asked for `generation_idle_seconds`.
    """

    def __init__(self, service: ServiceClient, welcome: Welcome, threads: int) -> None:
        self._service = service
        self._welcome = welcome
        self._threads = threads
        self._stopping = threading.Event()
        self._process: Process | None = None
        self._model: str | None = None
        self._answering = False
        self._asked_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the process; a question that it was answering is given back. Returns soon, whatever the service does."""
        self._stopping.set()
        if self._answering:
            self._thread.join(LEAVE_SECONDS)
        if self._process is not None:
            self._process.end()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                generation = self._service.offer(self._welcome.worker_id, Offer(generates=self._model))
                if generation is not None:
                    self._answering = True
                    self._answer(generation)
                    self._asked_at = time.monotonic()
            except LuthierError as error:
                log.warning("offering to answer: %s", error)
                self._stopping.wait(AWAY_SECONDS)
            except Exception:  # a full disk, say: others are to be answered when there is room again
                log.exception("a question could not be answered")
                self._stopping.wait(AWAY_SECONDS)
            self._answering = False
            if time.monotonic() - self._asked_at >= self._welcome.generation_idle_seconds:
                self._end_process()
        self._end_process()

    def _answer(self, generation: Generation) -> None:
        log.info("%s asks %s", generation.id, generation.question.model)
        with Held(self._service, generation, self._welcome.lease_seconds / RENEWALS) as lease:
            try:
                answer = self._exchange(lease)
            except LeaseLost:
                log.info("%s is not wanted any more", generation.id)
                return
        with suppress(LeaseLost):
            self._service.spoken(generation.id, Spoken(**lease.claim, answer=answer))

    def _exchange(self, lease: Held) -> Answered | None:
        """Let the process answer. None: the worker is shutting down."""
        generation = lease.generation
        process = self._running()
        self._model = generation.question.model
        try:
            artifact = generation.question.weights.artifact
            folder = None if artifact is None else process.fetch(self._service, artifact)
        except BlobMissing as missing:
            return Answered(refusal=Refusal(code=missing.code, message=missing.message))
        process.order(Ask(id=generation.id, question=generation.question, folder=folder))
        while not self._stopping.is_set():
            if lease.lost:
                self._cancel(process, generation.id)
                raise LeaseLost(f"{generation.id} is not wanted any more")
            told = process.hear(0.5)
            if told is not None and told.id == generation.id:
                if told.text:
                    lease.say(told.text)
                if told.answer is not None:
                    return told.answer
            elif told is None and process.ended:
                code = process.code()
                self._end_process()
                failure = TrialFailed(f"the generation process ended with code {code}; often that is want of memory")
                return Answered(refusal=Refusal(code=failure.code, message=failure.message))
        return None

    def _cancel(self, process: Process, question_id: str) -> None:
        process.order(Cancel(id=question_id))
        deadline = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < deadline and not self._stopping.is_set():
            told = process.hear(0.5)
            if told is not None and told.id == question_id and told.answer is not None:
                return
            if told is None and process.ended:
                break
        self._end_process()

    def _running(self) -> Process:
        if self._process is not None and self._process.ended:
            self._end_process()
        if self._process is None:
            self._process = Process(self._service.cache, self._threads)
        return self._process

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.end()
        self._process = self._model = None


class Held:
    """The right to answer a question, renewed by a thread while it is held as a context manager."""

    def __init__(self, service: ServiceClient, generation: Generation, interval: float) -> None:
        self.generation = generation
        self.lost = False
        self._service = service
        self._interval = interval
        self._position = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{generation.id}", daemon=True)

    @property
    def claim(self) -> dict[str, str | int]:
        return {"owner": self.generation.owner, "fence": self.generation.fence}

    def __enter__(self) -> Held:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()

    def say(self, text: str) -> None:
        try:
            self._service.said(self.generation.id, Said(**self.claim, position=self._position, text=text))
        except LeaseLost:
            self.lost = True
        self._position += 1

    def _renew(self) -> None:
        while not self.lost and not self._over.wait(self._interval):
            try:
                self._service.said(self.generation.id, Said(**self.claim, position=0))
            except LeaseLost:
                self.lost = True
            except LuthierError as error:
                log.warning("renewing %s: %s", self.generation.id, error)


class Process:
    """A generation process and the folder with the weights that it was given. `ended` once it says nothing any more."""

    def __init__(self, cache: Path, threads: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="generation-", dir=cache))
        self._child = subprocess.Popen(
            [*COMMAND, "--threads", str(threads), "--folder", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches the worker, which ends it in order
        )
        self._heard: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self._child.stdout,), daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        return not self._reader.is_alive() and self._heard.empty()

    def fetch(self, service: ServiceClient, artifact: Artifact) -> Path:
        """The files of a model, downloaded once."""
        digest = sha256("".join(f"{path}\0{blob}\0" for path, blob in sorted(artifact.files.items())).encode())
        folder = self._folder / digest.hexdigest()
        if not folder.exists():
            part = folder.with_suffix(".part")
            part.mkdir(exist_ok=True)
            for path, blob in artifact.files.items():
                if "/" not in path:  # in folders are what reproduces the model, and the reward model
                    service.fetch(blob, part / path)
            part.rename(folder)
        return folder

    def order(self, order: Ask | Cancel) -> None:
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # then it has ended, which is heard
            self._child.stdin.write(order.model_dump_json() + "\n")
            self._child.stdin.flush()

    def hear(self, seconds: float) -> Told | None:
        """What it says next; None where it is silent for so long."""
        try:
            return self._heard.get(timeout=seconds)
        except queue.Empty:
            return None

    def code(self) -> int:
        return self._child.wait()

    def end(self) -> None:
        """Safe to call twice."""
        self._child.terminate()
        try:
            self._child.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, lines: IO[str]) -> None:
        with suppress(ValueError):  # closed while it was read
            for line in lines:
                self._heard.put(Told.model_validate_json(line))
