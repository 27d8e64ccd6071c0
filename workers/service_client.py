"""The worker's HTTP client of the service. Its calls retry, so that they survive a restart of the service."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from luthier.client.transport import authorization, error_of
from luthier.errors import Unreachable
from luthier.worker_protocol import (
    Assignment,
    CheckpointSaved,
    Directive,
    Finished,
    Generation,
    Heartbeat,
    Hello,
    Judged,
    Keep,
    Offer,
    RungReached,
    RungVerdict,
    Said,
    Spoken,
    Welcome,
)

log = logging.getLogger(__name__)
Answer = TypeVar("Answer", bound=BaseModel)
CHUNK = 1 << 20


class ServiceClient:
    """Retries each call for `patience` seconds while the service cannot be reached. All calls are idempotent.

    Requests carry the API key from LUTHIER_API_KEY, if set. Raises the service's own errors (LeaseLost above all), and
    Unreachable when the retries have used up `patience`.
    """

    def __init__(self, server: str, cache: Path, *, patience: float = 300.0) -> None:
        self.server = server.rstrip("/")
        self.cache = cache
        self.patience = patience
        cache.mkdir(parents=True, exist_ok=True)
        self._http = httpx.Client(
            base_url=self.server,
            headers=authorization(),
            timeout=httpx.Timeout(30.0, read=120.0),
            trust_env=False,
        )

    def register(self, hello: Hello) -> Welcome:
        return Welcome.model_validate(self._post("/v1/workers", hello).json())

    def lease(self, worker_id: str) -> Assignment | None:
        response = self._post(f"/v1/workers/{worker_id}/lease", None)
        return None if response.status_code == httpx.codes.NO_CONTENT else Assignment.model_validate(response.json())

    def heartbeat(self, trial_id: str, heartbeat: Heartbeat) -> Directive:
        return Directive.model_validate(self._post(f"/v1/trials/{trial_id}/heartbeat", heartbeat).json())

    def checkpoint(self, trial_id: str, saved: CheckpointSaved) -> None:
        self._post(f"/v1/trials/{trial_id}/checkpoint", saved)

    def rung(self, trial_id: str, reached: RungReached) -> RungVerdict:
        return RungVerdict.model_validate(self._post(f"/v1/trials/{trial_id}/rung", reached).json())

    def judged(self, trial_id: str, judged: Judged) -> Keep:
        return Keep.model_validate(self._post(f"/v1/trials/{trial_id}/judged", judged).json())

    def finish(self, trial_id: str, finished: Finished) -> None:
        self._post(f"/v1/trials/{trial_id}/finish", finished)

    def offer(self, worker_id: str, offer: Offer) -> Generation | None:
        """Wait some seconds for a question to answer; None if nobody asked one."""
        response = self._post(f"/v1/workers/{worker_id}/generation", offer)
        return None if response.status_code == httpx.codes.NO_CONTENT else Generation.model_validate(response.json())

    def said(self, generation_id: str, said: Said) -> None:
        self._post(f"/v1/generations/{generation_id}/pieces", said)

    def spoken(self, generation_id: str, spoken: Spoken) -> None:
        self._post(f"/v1/generations/{generation_id}/end", spoken)

    def put_blob(self, file: Path) -> str:
        """Upload a file and return its digest."""

        def send() -> httpx.Response:
            with file.open("rb") as stream:
                return self._http.put("/v1/blobs", content=iter(lambda: stream.read(CHUNK), b""))

        return str(self._retry(send).json()["digest"])

    def get_blob(self, digest: str) -> Path:
        """Return the blob as a local file, downloaded once. Raises BlobMissing."""
        target = self.cache / digest
        if not target.exists():
            with TemporaryDirectory(dir=self.cache) as own:  # other workers download into the same cache
                self.fetch(digest, Path(own) / digest).replace(target)
        return target

    def fetch(self, digest: str, target: Path) -> Path:
        """Download the blob into the file `target` and return it. Raises BlobMissing."""

        def fetch() -> httpx.Response:
            with self._http.stream("GET", f"/v1/blobs/{digest}") as response, target.open("wb") as out:
                if response.is_success:
                    for chunk in response.iter_bytes(CHUNK):
                        out.write(chunk)
                else:
                    response.read()
                return response

        self._retry(fetch)
        return target

    def drop_blob(self, digest: str) -> None:
        """Delete the local copy of a blob."""
        (self.cache / digest).unlink(missing_ok=True)

    def close(self) -> None:
        self._http.close()

    def _post(self, path: str, message: BaseModel | None) -> httpx.Response:
        body = message.model_dump_json() if message is not None else "{}"
        headers = {"content-type": "application/json"}
        return self._retry(lambda: self._http.post(path, content=body, headers=headers))

    def _retry(self, call: Any) -> httpx.Response:
        deadline, pause = time.monotonic() + self.patience, 0.2
        while True:
            try:
                response: httpx.Response = call()
                if response.status_code < 500:
                    if response.is_success:
                        return response
                    raise error_of(response)
                problem = f"answered {response.status_code}"
            except httpx.TransportError as error:
                problem = str(error) or type(error).__name__
            if time.monotonic() + pause > deadline:
                raise Unreachable(f"cannot reach the service at {self.server}: {problem}")
            log.warning("service at %s: %s; retrying", self.server, problem)
            time.sleep(pause)
            pause = min(pause * 2, 5.0)
