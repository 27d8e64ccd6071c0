"""Client of the OpenAI-compatible API that `score_model` and `label_model` call (LUTHIER_GRADER_BASE_URL)."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx

from luthier.errors import GraderFault
from luthier.settings import GraderSettings

PAUSE_SECONDS: Final = 0.5  # doubled after each attempt
LONGEST_PAUSE_SECONDS: Final = 30.0
SHOWN_CHARACTERS: Final = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The model's reply. `cut`: it was truncated at the limit of tokens."""

    text: str
    refusal: str | None
    cut: bool
    tokens: int


class Endpoint:
    """A client of the endpoint, for many threads. Retries temporary errors, with at most `attempts` attempts."""

    def __init__(self, settings: GraderSettings, attempts: int) -> None:
        """`settings.grader_base_url` must be set."""
        assert settings.grader_base_url is not None
        self._url = httpx.URL(settings.grader_base_url.rstrip("/") + "/chat/completions")
        self._attempts = attempts
        self._key = settings.grader_api_key.get_secret_value().strip() if settings.grader_api_key is not None else ""
        self._unstructured: set[str] = set()  # models for which the endpoint takes no `response_format`
        self._http = httpx.Client(
            timeout=settings.grader_timeout_seconds,
            headers={"authorization": f"Bearer {self._key}"} if self._key else {},
            trust_env=self._url.host not in ("localhost", "127.0.0.1", "::1"),  # no proxy for this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def chat(self, body: Mapping[str, Any], schema: Mapping[str, Any]) -> Reply:
        """Return the reply to one request. It follows `schema` if the endpoint supports structured output.

        Raises GraderFault (`model_grader_server_error`) if there is no answer.
        """
        model = body["model"]
        if model not in self._unstructured:
            form = {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": schema}}
            response = self._post({**body, "response_format": form})
            if response.status_code not in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
                return self._reply(response)
        response = self._post(body)
        if response.is_success:
            self._unstructured.add(model)
        return self._reply(response)

    def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        pause = PAUSE_SECONDS
        for left in reversed(range(self._attempts)):
            wait: float | None = None
            try:
                response = self._http.post(self._url, json=body)
            except httpx.TransportError as error:
                if not left:
                    raise self._fault(f"did not answer: {type(error).__name__}: {error}") from error
            else:
                if not _passing(response) or not left:
                    return response
                wait = _asked_wait(response)
            time.sleep(min(LONGEST_PAUSE_SECONDS, wait if wait is not None else pause * random.uniform(0.5, 1.0)))
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _reply(self, response: httpx.Response) -> Reply:
        if not response.is_success:
            raise self._fault(f"returned status {response.status_code}: {_problem(response)}")
        try:
            found = response.json()
            choice = found["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content") or "", message.get("refusal")
            tokens = int((found.get("usage") or {}).get("total_tokens") or 0)
            cut = choice.get("finish_reason") == "length"
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._fault(f"did not return a chat completion: {response.text}") from error
        return Reply(text=str(text), refusal=None if refusal is None else str(refusal), cut=cut, tokens=tokens)

    def _fault(self, what: str) -> GraderFault:
        place = f"{self._url.scheme}://{self._url.netloc.decode()}{self._url.path}"  # without a password
        said = what.replace(self._key, "***") if self._key else what  # some servers repeat the key in their message
        return GraderFault(
            f"The grader API at {place} {said[:SHOWN_CHARACTERS]}",
            kind="model_grader_server_error",
            param="model",
        )


def _passing(response: httpx.Response) -> bool:
    """Return whether the error is temporary, so that a retry may succeed."""
    return response.status_code in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS) or (
        response.is_server_error and response.status_code != httpx.codes.NOT_IMPLEMENTED
    )


def _asked_wait(response: httpx.Response) -> float | None:
    """Return the seconds of the `Retry-After` header, if it is given in seconds."""
    asked = response.headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else None


def _problem(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return response.text or response.reason_phrase
