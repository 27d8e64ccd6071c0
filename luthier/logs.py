"""Logging as text or as JSON, with the ids of the request, job and trial.

LUTHIER_LOG_FORMAT is `text` (the default) or `json`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]

ACCESS: Final = logging.getLogger("luthier.access")
_TEXT: Final = "%(asctime)s %(name)s %(levelname)s %(message)s"
_ids: ContextVar[Mapping[str, str]] = ContextVar("luthier_log_ids", default={})  # noqa: B039 (a Mapping is not changed)


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Add these fields (request_id, job_id, trial_id) to lines that this thread or task logs in the block."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def configure(form: LogFormat) -> None:
    """Log to standard error. Successful requests are logged in the JSON format only."""
    handler = logging.StreamHandler()
    handler.addFilter(_add_ids)
    match form:
        case "text":
            handler.setFormatter(logging.Formatter(_TEXT))
        case "json":
            names = {"levelname": "level", "name": "logger", "exc_info": "exception"}
            handler.setFormatter(
                JsonFormatter("{levelname}{name}{message}", style="{", rename_fields=names, timestamp="time")
            )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    ACCESS.setLevel(logging.INFO if form == "json" else logging.WARNING)
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _add_ids(record: logging.LogRecord) -> bool:
    for name, value in _ids.get().items():
        if not hasattr(record, name):  # fields of the line itself take precedence
            setattr(record, name, value)
    return True
