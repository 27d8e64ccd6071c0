"""The worker's side of inference: a thread that asks the service for questions, and the process that answers them."""

from __future__ import annotations

import logging
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

from luthier import child_process
from luthier.errors import BlobMissing, LeaseLost, LuthierError, TrialFailed
from luthier.worker_protocol import Answered, Artifact, Generation, Offer, Refusal, Said, Spoken, Welcome
from workers.inference.messages import Ask, Cancel, Piece
from workers.service_client import ServiceClient

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 5.0  # before the next try after a failure
CANCEL_SECONDS: Final = 30.0  # for a cancelled answer to stop
EXIT_SECONDS: Final = 5.0  # for the process to exit
MODULE: Final = "workers.inference.process"
RENEWALS: Final = 10  # of a lease, within its length


class Host:
    """Answers questions for one worker, one after another, while the worker trains.

    The first question starts the process. It is ended after `generation_idle_seconds` without a question.
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
        """End the process and give back the question that it was answering. Returns within seconds."""
        self._stopping.set()
        if self._answering:
            self._thread.join(EXIT_SECONDS)
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
                log.warning("cannot ask the service for questions: %s", error)
                self._stopping.wait(RETRY_SECONDS)
            except Exception:  # such as a full disk: the thread must survive for later questions
                log.exception("failed to answer a question")
                self._stopping.wait(RETRY_SECONDS)
            self._answering = False
            if time.monotonic() - self._asked_at >= self._welcome.generation_idle_seconds:
                self._end_process()
        self._end_process()

    def _answer(self, generation: Generation) -> None:
        log.info("%s: question for %s", generation.id, generation.question.model)
        with GenerationLease(self._service, generation, self._welcome.lease_seconds / RENEWALS) as lease:
            try:
                answer = self._exchange(lease)
            except LeaseLost:
                log.info("%s was cancelled", generation.id)
                return
        with suppress(LeaseLost):
            self._service.spoken(generation.id, Spoken(**lease.claim, answer=answer))

    def _exchange(self, lease: GenerationLease) -> Answered | None:
        """Have the process answer, and pass on the pieces. Return None if the worker is shutting down."""
        generation = lease.generation
        process = self._running()
        self._model = generation.question.model
        try:
            artifact = generation.question.weights.artifact
            folder = None if artifact is None else process.fetch(self._service, artifact)
        except BlobMissing as missing:
            return Answered(refusal=Refusal(code=missing.code, message=missing.message))
        process.send(Ask(id=generation.id, question=generation.question, folder=folder))
        while not self._stopping.is_set():
            if lease.lost:
                self._cancel(process, generation.id)
                raise LeaseLost(f"{generation.id} was cancelled, or its lease expired")
            piece = process.receive(0.5)
            if piece is not None and piece.id == generation.id:
                if piece.text:
                    lease.say(piece.text)
                if piece.answer is not None:
                    return piece.answer
            elif piece is None and process.ended:
                code = process.code()
                self._end_process()
                failure = TrialFailed(
                    f"the generation process ended with code {code}, often a sign of too little memory"
                )
                return Answered(refusal=Refusal(code=failure.code, message=failure.message))
        return None

    def _cancel(self, process: Process, question_id: str) -> None:
        """Stop an answer. End the process if it does not stop in time."""
        process.send(Cancel(id=question_id))
        deadline = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < deadline and not self._stopping.is_set():
            piece = process.receive(0.5)
            if piece is not None and piece.id == question_id and piece.answer is not None:
                return
            if piece is None and process.ended:
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


class GenerationLease:
    """The lease on a question: a context manager with a thread that renews it. `lost` becomes true when it is lost."""

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

    def __enter__(self) -> GenerationLease:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()

    def say(self, text: str) -> None:
        """Send a piece of the answer to the service."""
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
    """A generation process, and the folder with its weights. `ended` becomes true once its output is finished."""

    def __init__(self, cache: Path, threads: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="generation-", dir=cache))
        arguments = ("--threads", str(threads), "--folder", str(self._folder))
        self._child = child_process.piped(MODULE, *arguments)
        self._pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self._child.stdout,), daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        return not self._reader.is_alive() and self._pieces.empty()

    def fetch(self, service: ServiceClient, artifact: Artifact) -> Path:
        """Return the folder of an exported model, downloaded once."""
        digest = sha256("".join(f"{path}\0{blob}\0" for path, blob in sorted(artifact.files.items())).encode())
        folder = self._folder / digest.hexdigest()
        if not folder.exists():
            part = folder.with_suffix(".part")
            part.mkdir(exist_ok=True)
            for path, blob in artifact.files.items():
                if "/" not in path:  # subfolders hold the reproduction script and the reward model
                    service.fetch(blob, part / path)
            part.rename(folder)
        return folder

    def send(self, command: Ask | Cancel) -> None:
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended, which `receive` and `ended` will show
            self._child.stdin.write(command.model_dump_json() + "\n")
            self._child.stdin.flush()

    def receive(self, seconds: float) -> Piece | None:
        """Return the next piece; None if there is none within `seconds`."""
        try:
            return self._pieces.get(timeout=seconds)
        except queue.Empty:
            return None

    def code(self) -> int:
        return self._child.wait()

    def end(self) -> None:
        """End the process and remove its folder. Safe to call twice."""
        self._child.terminate()
        try:
            self._child.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, lines: IO[str]) -> None:
        with suppress(ValueError):  # the pipe was closed during a read
            for line in lines:
                self._pieces.put(Piece.model_validate_json(line))
