"""`luthier cells`: the tested combinations of learning algorithm and weight update, with their test results."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer
from rich.table import Table

from luthier.algorithms import Algorithm
from luthier.cli.options import JsonOption
from luthier.cli.show import as_json, console
from luthier.errors import UserError
from luthier.updates import Update
from luthier.values import kinds


def cells(
    algorithm: Annotated[str | None, typer.Option(help="Only this algorithm, e.g. `dpo`.")] = None,
    update: Annotated[str | None, typer.Option(help="Only this weight update, e.g. `lora`.")] = None,
    json: JsonOption = False,
) -> None:
    """Show the test results of each learning algorithm with each weight update.

    Each combination was trained on a tiny real model. Columns: the score on held-out rows before and after, how many
    tensors changed and how many did not, and whether it saves, loads and resumes exactly. Needs no service.
    """
    from search.space.verified import recorded  # other commands of the client do not need the search

    _check("--algorithm", algorithm, kinds(Algorithm))
    _check("--update", update, kinds(Update))
    found = [
        cell for cell in recorded() if algorithm in (None, *cell.program.split("+")) and update in (None, cell.update)
    ]
    if json:
        as_json(found)
        return
    if not found:
        console.print("This combination has no test result: no search offers it.")
    for (recipe, edited), group in groupby(found, key=lambda cell: (cell.program, bool(cell.edit))):
        shown = list(group)
        title = f"{recipe} on {shown[0].data} data" + (", edited architecture" if edited else "")
        table = Table(box=None, header_style="bold", title=title, title_justify="left")
        for column in (
            "edit" if edited else "update",
            shown[0].metric.replace("_", " "),
            "changed",
            "unchanged",
            "saves",
            "resumes",
            "",
        ):
            table.add_column(column)
        for cell in shown:
            table.add_row(
                cell.edit or cell.update,
                f"{cell.untuned:.4g} → {cell.trained:.4g}",
                str(cell.moved),
                str(cell.still),
                "exactly" if cell.reloads else "no",
                "bit for bit" if cell.resumed else "no",
                "[green]passes[/green]" if cell.passes else "[red]fails[/red]",
            )
        console.print(table)
        console.print()


def _check(option: str, name: str | None, choices: tuple[str, ...]) -> None:
    """Raise UserError for a name that is none of the choices."""
    if name is not None and name not in choices:
        raise UserError(f"{option}: {name!r} does not exist. Choose from {', '.join(choices)}.", param=option)
