"""`luthier models`: base models and fine-tuned models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from luthier.api_types import Model
from luthier.cli.options import JsonOption, ServerOption, connect
from luthier.cli.show import as_json, console, errors
from luthier.errors import UserError
from luthier.models.base_model import BaseModelEntry, ModelFacts
from luthier.models.sources import HUB_ID, local_folder

app = typer.Typer(help="Base models and fine-tuned models.", no_args_is_help=True)


@app.command(name="list")
def list_models(server: ServerOption = None, json: JsonOption = False) -> None:
    """List the registered base models and the fine-tuned models of jobs."""
    with connect(server) as client:
        models = client.models()
    if json:
        as_json(models)
        return
    table = Table(box=None, header_style="bold")
    for column in ("model", "parameters", "layers", "heads (KV)", "context", "not possible", "from"):
        table.add_column(column)
    for model in models:
        failed = ", ".join((model.facts.unsupported if model.facts else None) or {})
        table.add_row(model.id, *_shape(model.facts), failed or "–", _source(model))
    console.print(table)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the model in designs and commands.")],
    source: Annotated[
        str,
        typer.Argument(
            help="Folder with config.json, tokenizer.json and *.safetensors; GGUF file, which is converted; or hub id "
            "(ORG/NAME or ORG/NAME@REVISION), which is downloaded."
        ),
    ],
    home: Annotated[
        Path, typer.Option(envvar="LUTHIER_HOME", help="Home folder, for converted and downloaded models.")
    ] = Path("~/.luthier"),
    server: ServerOption = None,
) -> None:
    """Register a base model that the service and its workers can read on this machine."""
    with connect(server) as client:
        client.models()  # fail early if the service does not answer
        path = Path(source).expanduser()
        is_path = path.exists() or path.suffix == ".gguf" or not HUB_ID.fullmatch(source)
        with errors.status(f"{name}: registering") as shown:

            def begin(step: str) -> None:
                shown.update(f"{name}: {escape(step)}")
                if not errors.is_terminal:  # a log shows each step
                    errors.print(f"{name}: {step}", markup=False, highlight=False, soft_wrap=True)

            folder = local_folder(str(path.absolute()) if is_path else source, home.expanduser().absolute(), begin)
            model = client.add_model(name, str(folder), begin)
    assert model.facts is not None, "a base model has facts"
    console.print(
        f"{model.id}: {model.facts.architecture}, {model.facts.parameters / 1e6:.1f} M parameters"
        + (f", de-quantised from {model.facts.quantised}" if model.facts.quantised else "")
    )
    for kind, reason in (model.facts.unsupported or {}).items():
        console.print(f"  not possible: {kind}: {reason}", markup=False)
    for note in _notes(model.facts):
        console.print(f"  {note}", markup=False)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A base model.")], server: ServerOption = None, json: JsonOption = False
) -> None:
    """Show a base model, and which weight updates and edits are not possible with it, and why."""
    from search.methods import EDITS, UPDATES  # other commands of the client do not need the search
    from search.space.validate import edit_refusal, update_refusal

    with connect(server) as client:
        model = client.model(name)
    if json:
        as_json(model)
        return
    if model.facts is None:
        raise UserError(f"{name} is no base model. `luthier models list` lists them.", param="name")
    entry = BaseModelEntry(name=model.id, source=model.source or model.id, facts=model.facts)
    console.print(f"{model.id}: {model.facts.architecture}, {model.facts.family}, from {_source(model)}", markup=False)
    for note in _notes(model.facts):
        console.print(note, markup=False)
    refusals = {spec.kind: update_refusal(spec.kind, entry) for spec in UPDATES}
    refusals |= {spec.edit: edit_refusal(spec.edit, entry) for spec in EDITS}
    table = Table(box=None, header_style="bold")
    for column in ("update or edit", "possible", "why not"):
        table.add_column(column, overflow="fold")
    four_bit = {spec.kind for spec in UPDATES if spec.four_bit}
    for kind, reason in refusals.items():
        table.add_row(kind, "no" if reason else "with CUDA" if kind in four_bit else "yes", Text(reason or ""))
    console.print(table)


def _notes(facts: ModelFacts) -> Iterator[str]:
    """Yield what else a user should know of a base model."""
    if facts.untried is not None:
        yield f"not tried, so every update and edit is offered: {facts.untried}"
    if facts.chat_fault is not None:
        yield f"no chats: {facts.chat_fault}"


def _source(model: Model) -> str:
    facts = model.facts
    if facts is None or facts.origin is None:
        return model.source or model.job or "–"
    return f"{facts.origin}, de-quantised from {facts.quantised}" if facts.quantised else facts.origin


def _shape(facts: ModelFacts | None) -> tuple[str, ...]:
    if facts is None:
        return ("–",) * 4
    millions = f"{facts.parameters / 1e6:.1f} M"
    return millions, str(facts.layers), f"{facts.heads} ({facts.kv_heads})", str(facts.context)
