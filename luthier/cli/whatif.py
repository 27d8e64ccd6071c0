"""`luthier what-if`: estimate the memory and time of a design, without training."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from luthier.api_types import DesignEstimate
from luthier.cli.jobs import resolve
from luthier.cli.options import JsonOption, ServerOption, connect
from luthier.cli.show import as_json, console, duration
from luthier.errors import UserError

JOB_PREFIX = "ftjob-"


def what_if(
    data: Annotated[
        str, typer.Option(metavar="FILE_ID|JOB", help="Training data: an uploaded file, a job, or `last`.")
    ],
    model: Annotated[str | None, typer.Option(help="Base model; estimates its plain LoRA default.")] = None,
    design: Annotated[
        Path | None,
        typer.Option(help="JSON file with a design, instead of the job's best or the default.", dir_okay=False),
    ] = None,
    trial: Annotated[str | None, typer.Option(help="Number or id of the job's trial to start from.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change one setting, e.g. rank=64, update=full, layers=20, batch_size=4; repeat for several.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="WORKER|KIND:GIB", help="Name of a live worker, or e.g. cuda:80 (default: first worker)."),
    ] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Estimate the memory and time of a design, and whether it fits a device. Nothing is trained."""
    with connect(server) as client:
        job = data == "last" or data.startswith(JOB_PREFIX)
        found = client.estimate(
            job=resolve(client, data) if job else None,
            dataset=None if job else data,
            model=model,
            design=None if design is None else _read(design),
            trial=trial,
            change=_changes(change or ()) or None,
            device=None if device is None else _device(device),
        )
    if json:
        as_json(found)
        return
    console.print(_table(found))
    if found.why:
        console.print(f"\n[yellow]not feasible[/yellow]: {found.why}", highlight=False)
    source = f"{found.calibrated_from} finished trials on this kind of device" if found.calibrated_from else None
    console.print(
        f"\nEstimated for {found.device}, "
        + (f"calibrated with {source}." if source else "not calibrated: it can be off several-fold."),
        highlight=False,
    )


def _read(file: Path) -> Any:
    try:
        return json_format.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON: {error}", param="--design") from error


def _changes(given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise UserError(f"--set must be NAME=VALUE, e.g. rank=64, not {each!r}.", param="--set")
        try:
            found[name] = json_format.loads(value)
        except ValueError:
            found[name] = value
    return found


def _device(given: str) -> str | dict[str, Any]:
    kind, colon, gib = given.partition(":")
    if not colon or kind not in ("cpu", "cuda", "mps"):
        return given
    try:
        return {"kind": kind, "memory_bytes": round(float(gib) * 2**30)}
    except ValueError as error:
        raise UserError(
            f"--device must be a worker's name or KIND:GIB, e.g. cuda:80, not {given!r}.", param="--device"
        ) from error


def _table(found: DesignEstimate) -> Table:
    """Return a table with one column, or with two for a change: without it and with it."""
    shown = [each for each in (found.unchanged, found) if each is not None]
    table = Table(box=None, header_style="bold")
    table.add_column("", no_wrap=True)
    for each in shown:
        table.add_column(each.summary, overflow="fold")
    lines: list[tuple[str, Callable[[DesignEstimate], str]]] = [
        ("memory", lambda each: _size(each.memory_bytes)),
        ("time", lambda each: duration(each.seconds)),
        ("  of that training", lambda each: duration(each.parts.seconds["training"])),
        ("  rollouts", lambda each: duration(each.parts.seconds["rollouts"])),
        ("  judging", lambda each: duration(each.parts.seconds["judging"])),
        ("tokens per second", lambda each: f"{each.tokens_per_second:,.0f}"),
        ("tokens trained on", lambda each: f"{each.tokens:,}"),
        ("optimiser steps", lambda each: f"{each.steps:,}"),
        ("FLOPs", lambda each: f"{each.flops:.3g}"),
        ("parameters", lambda each: f"{each.parameters:,}"),
        ("  trainable", lambda each: f"{each.trainable_parameters:,}"),
        ("feasible", lambda each: "yes" if each.feasible else "no"),
    ]
    for name, value in lines:
        table.add_row(name, *map(value, shown))
    return table


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
