"""Follow a job on the command line: its events as lines, with a live progress bar below."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from luthier.api_types import Event, Job
from luthier.cli.show import UNTUNED, console, duration, standing
from luthier.client import Client
from luthier.errors import Unreachable

POLL_SECONDS = 1.0
LEVEL_STYLES = {"info": "", "warn": "yellow", "error": "red"}


def follow(client: Client, job_id: str) -> Job | None:
    """Show a job until it ends and return it; return None after Ctrl-C, which leaves the job running."""
    try:
        with _progress() as (progress, task):
            for job, events in _changes(client, job_id):
                for event in events:
                    at = datetime.fromtimestamp(event.created_at).astimezone()
                    progress.console.print(
                        f"[dim]{at:%H:%M:%S}[/dim] {event.message}", style=LEVEL_STYLES[event.level], highlight=False
                    )
                state = job.luthier
                progress.update(
                    task, completed=state.trials_done, total=state.trials_total, status=_status_line(job, time.time())
                )
                if job.status.terminal:
                    return job
    except KeyboardInterrupt:
        console.print(f"\nStopped following. The job continues: `luthier trials {job_id}` shows it, ", end="")
        console.print(f"`luthier cancel {job_id}` cancels it.")
    return None


@contextmanager
def _progress() -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("trials"), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[status]}"))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield progress, progress.add_task("trials", total=None, status="")


def _changes(client: Client, job_id: str) -> Iterator[tuple[Job, list[Event]]]:
    """Yield the job's state and its new events once a second, also across a restart of the service."""
    seen: set[str] = set()
    away = False
    while True:
        try:
            job = client.job(job_id)
            events = [event for event in reversed(client.events(job_id, limit=100)) if event.id not in seen]
        except Unreachable as error:
            if not away:
                console.print(f"[yellow]{error.message}. Reconnecting …[/yellow]")
            away = True
            time.sleep(POLL_SECONDS)
            continue
        away = False
        seen.update(event.id for event in events)
        yield job, events
        time.sleep(POLL_SECONDS)


def _status_line(job: Job, now: float) -> str:
    state = job.luthier
    # While no design is complete, the base is merely all that is scored.
    which = "untuned base" if state.best and state.best.number == UNTUNED else "recommended so far"
    best = f"{which} {standing(state.best, state.objective)}" if state.best else "no score yet"
    paused = f", {state.trials_paused} paused" if state.trials_paused else ""
    repeated = f", repeats {state.confirmations_done}/{state.confirmations_total}"
    confirmed = repeated if state.trials_done == state.trials_total and state.confirmations_total else ""
    left = f", about {duration(max(0.0, state.estimated_finish - now))} left" if state.estimated_finish else ""
    resting = "job paused; " if state.paused else ""
    return resting + best + paused + confirmed + left
