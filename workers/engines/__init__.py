"""Who starts worker processes, and where. An engine only starts and stops them; the work comes over HTTP."""

from __future__ import annotations

from typing import Protocol


class Engine(Protocol):
    """Keeps a number of workers running against a service."""

    def start(self, server: str) -> None:
        """Start the workers; they register with the service at `server` when they are ready."""
        ...

    def stop(self) -> None:
        """Ask the workers to give back what they hold, wait for them, and end those that do not."""
        ...
