"""The service's background threads: each repeats one piece of work, and /readyz asks whether it still does."""

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

PATIENCE: Final = 300.0  # seconds in which one look should end well: a long one is none that hangs


class Pulse:
    """Of one loop, which runs in `thread` and beats whenever it has got something done. Where it has not for so many
    seconds as one has `patience`, it is stuck."""

    def __init__(self, name: str, thread: Thread, patience: float) -> None:
        self.name = name
        self._thread, self._patience = thread, patience
        self._beat = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since it last beat, or was made."""
        return time.monotonic() - self._beat

    def beat(self) -> None:
        self._beat = time.monotonic()

    def trouble(self) -> str | None:
        """What is wrong with the loop, in words."""
        if not self._thread.is_alive():
            return f"the loop of the {self.name} has stopped"
        if (age := self.age) > self._patience:
            return f"the loop of the {self.name} is stuck: it last got something done {age:.0f} s ago"
        return None


class Ticker:
    """A thread that takes a `look` every `tick_seconds` until it is stopped."""

    def __init__(self, ctx: Context, look: Callable[[Context, datetime], None], name: str) -> None:
        self._here = ctx
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"luthier-{name}", daemon=True)
        self.pulse = Pulse(name, self._thread, PATIENCE + ctx.settings.tick_seconds)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the look in progress is over."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._here.settings.tick_seconds):
            try:
                self._look(self._here, utc_now())
                self.pulse.beat()
            except Exception:  # whatever happens once must not end the service's heartbeat
                log.exception("a look at the %s failed; the next one tries again", self._thread.name)
