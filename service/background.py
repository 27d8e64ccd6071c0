"""The service's background threads. Each repeats one piece of work, and /readyz reports whether it still runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from threading import Thread
from typing import Final

from service.context import Context, utc_now

log = logging.getLogger(__name__)

PATIENCE: Final = 300.0  # seconds within which one run of a loop should end


class Liveness:
    """Whether a loop still runs: it is stuck when `progressed` was not called for `patience` seconds."""

    def __init__(self, name: str, thread: Thread, patience: float) -> None:
        self.name = name
        self._thread, self._patience = thread, patience
        self._progressed_at = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the loop last made progress, or was created."""
        return time.monotonic() - self._progressed_at

    def progressed(self) -> None:
        self._progressed_at = time.monotonic()

    def problem(self) -> str | None:
        """Return what is wrong with the loop, or None."""
        if not self._thread.is_alive():
            return f"the {self.name} loop has stopped"
        if (age := self.age) > self._patience:
            return f"the {self.name} loop is stuck: its last progress was {age:.0f} s ago"
        return None


class Ticker:
    """A thread that calls `tick` every `tick_seconds` until it is stopped."""

    def __init__(self, ctx: Context, tick: Callable[[Context, datetime], None], name: str) -> None:
        self._ctx = ctx
        self._tick = tick
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"luthier-{name}", daemon=True)
        self.liveness = Liveness(name, self._thread, PATIENCE + ctx.settings.tick_seconds)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. Returns when the tick in progress is over."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._ctx.settings.tick_seconds):
            try:
                self._tick(self._ctx, utc_now())
                self.liveness.progressed()
            except Exception:  # one failed tick must not end the loop
                log.exception("a tick of %s failed; the next one tries again", self._thread.name)
