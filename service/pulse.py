"""Whether a loop of the service still goes round: what /readyz looks at."""

from __future__ import annotations

import time
from threading import Thread


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
