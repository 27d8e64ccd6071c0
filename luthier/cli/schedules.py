"""`luthier schedules`: create jobs at the ticks of a cron expression."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from luthier.api_types import Schedule, ScheduleRun
from luthier.cli.options import JsonOption, ServerOption, connect, read_object
from luthier.cli.show import as_json, console
from luthier.client import Client
from luthier.errors import NotFound, UserError
from luthier.schedule import CatchUp, Overlap, RunState

app = typer.Typer(help="Create jobs on a cron schedule.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Name or id of a schedule.")]

COLOURS = {RunState.SUCCEEDED: "green", RunState.FAILED: "red", RunState.RUNNING: "cyan", RunState.MISSED: "yellow"}


@app.command(name="list")
def list_schedules(server: ServerOption = None, json: JsonOption = False) -> None:
    """List the schedules, with their next ticks and latest runs."""
    with connect(server) as client:
        found = client.schedules()
    if json:
        as_json(found)
        return
    table = Table(box=None, header_style="bold")
    for column in ("schedule", "cron", "zone", "next", "latest run", "alias"):
        table.add_column(column)
    for schedule in found:
        following = _moment(schedule.next_runs[0]) if schedule.next_runs else "disabled"
        failing = Text(f" ({schedule.failures} failed in a row)", style="red") if schedule.failing else Text()
        latest = _state(schedule.last_run.state) + failing if schedule.last_run else Text("–")
        table.add_row(schedule.name, schedule.cron, schedule.time_zone, following, latest, schedule.alias or "–")
    console.print(table)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the schedule.")],
    cron: Annotated[str, typer.Argument(help="Minute, hour, day of month, month, day of week: '30 3 * * MON-FRI'.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="Dataset for all runs. Not with --newest.", exists=True, dir_okay=False),
    ] = None,
    newest: Annotated[
        str | None, typer.Option(metavar="FILENAME", help="Each run uses the newest uploaded file with this name.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone, e.g. Europe/Berlin (default: UTC).")] = None,
    trials: Annotated[int | None, typer.Option(help="Number of designs that each run tries (default: 24).")] = None,
    job: Annotated[
        str,
        typer.Option(metavar="JSON|@FILE", help="Other fields of the jobs, as in POST /v1/fine_tuning/jobs."),
    ] = "{}",
    overlap: Annotated[
        Overlap | None, typer.Option(help="What to do while an earlier run is still active (default: skip).")
    ] = None,
    misfire_grace_seconds: Annotated[
        float | None, typer.Option(help="Seconds of delay after which a tick counts as missed (default: 300).")
    ] = None,
    catch_up: Annotated[CatchUp | None, typer.Option(help="Which missed ticks to run late (default: latest).")] = None,
    catch_up_seconds: Annotated[
        float | None,
        typer.Option(help="Do not run missed ticks that are older than this, in seconds (default: 86400, a day)."),
    ] = None,
    alert_after: Annotated[
        int | None, typer.Option(help="Failed runs in a row after which webhooks are notified (default: 3).")
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(help="Alias to move to a winner that is significantly better than its current model."),
    ] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Create a schedule."""
    body: dict[str, Any] = read_object(job, "--job")
    if file is not None and newest is not None:
        raise UserError("Give either a dataset file or --newest.", param="FILE")
    if newest is not None:
        body["training_file"] = {"newest": newest}
    if trials is not None:
        body["search"] = body.get("search", {}) | {"trials": trials}
    options = {
        "overlap": overlap,
        "misfire_grace_seconds": misfire_grace_seconds,
        "catch_up": catch_up,
        "catch_up_seconds": catch_up_seconds,
        "alert_after": alert_after,
        "alias": alias,
    }
    with connect(server) as client:
        if file is not None:
            body["training_file"] = client.upload(file).id
        made = client.create_schedule(name, cron, body, time_zone=zone, **options)
    if json:
        as_json(made)
        return
    console.print(f"{made.name} ({made.id}): first run {_moment(made.next_runs[0])}", highlight=False)


@app.command()
def run(schedule: NameArgument, server: ServerOption = None, json: JsonOption = False) -> None:
    """Run a schedule now, even if it is disabled."""
    with connect(server) as client:
        found = client.run_schedule(resolve(client, schedule).id)
    if json:
        as_json(found)
    else:
        console.print(_outcome(found), highlight=False)
    raise typer.Exit(1 if found.state is RunState.FAILED else 0)


@app.command()
def runs(schedule: NameArgument, server: ServerOption = None, json: JsonOption = False) -> None:
    """List the runs of a schedule, the latest first."""
    with connect(server) as client:
        found = client.schedule_runs(resolve(client, schedule).id)
    if json:
        as_json(found)
        return
    table = Table(box=None, header_style="bold")
    for column in ("due", "by", "state", "job", "why"):
        table.add_column(column)
    for one in found:
        why = one.contest.why if one.contest else one.reason or ""
        table.add_row(_moment(one.due_at), one.trigger, _state(one.state), one.job or "–", why)
    console.print(table)


@app.command()
def enable(schedule: NameArgument, server: ServerOption = None) -> None:
    """Enable a schedule; ticks missed while it was disabled are not run."""
    with connect(server) as client:
        found = client.change_schedule(resolve(client, schedule).id, enabled=True)
    console.print(f"{found.name}: next run {_moment(found.next_runs[0])}", highlight=False)


@app.command()
def disable(schedule: NameArgument, server: ServerOption = None) -> None:
    """Disable a schedule; a running job continues."""
    with connect(server) as client:
        found = client.change_schedule(resolve(client, schedule).id, enabled=False)
    console.print(f"{found.name} is disabled.")


@app.command()
def remove(schedule: NameArgument, server: ServerOption = None) -> None:
    """Delete a schedule and its history; its jobs are kept."""
    with connect(server) as client:
        found = resolve(client, schedule)
        client.delete_schedule(found.id)
    console.print(f"Deleted {found.name}.")


def resolve(client: Client, schedule: str) -> Schedule:
    """Return a schedule by its id or name. Raises NotFound with the existing names."""
    every = client.schedules()
    for found in every:
        if schedule in (found.id, found.name):
            return found
    names = ", ".join(found.name for found in every) or "none"
    raise NotFound(f"Schedule {schedule!r} was not found. Existing schedules: {names}.", param="SCHEDULE")


def _outcome(run: ScheduleRun) -> str:
    because = f": {run.reason}" if run.reason else ""
    return f"{run.job or run.id} is {run.state.value}{because}"


def _state(state: RunState) -> Text:
    return Text(state.value, style=COLOURS.get(state, ""))


def _moment(seconds: int) -> str:
    """Format a time in the local time zone."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%d %b %Y %H:%M %Z}"
