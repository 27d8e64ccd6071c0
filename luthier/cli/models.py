"""`luthier models`: the base models that designs may start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from luthier.cli.connection import JsonOption, ServerOption, connect
from luthier.cli.show import as_json, console
from luthier.model import ModelFacts

app = typer.Typer(help="Base models and fine-tuned results.", no_args_is_help=True)


@app.command(name="list")
def list_models(server: ServerOption = None, json: JsonOption = False) -> None:
    """Show the registered base models and the models that jobs have made."""
    with connect(server) as client:
        models = client.models()
    if json:
        as_json(models)
        return
    table = Table(box=None, header_style="bold")
    for column in ("model", "parameters", "layers", "heads (KV)", "context", "from"):
        table.add_column(column)
    for model in models:
        table.add_row(model.id, *_shape(model.facts), model.source or model.job or "–")
    console.print(table)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name under which designs refer to the model.")],
    source: Annotated[Path, typer.Argument(help="Folder with config.json, tokenizer.json and *.safetensors.")],
    server: ServerOption = None,
) -> None:
    """Register a base model from a folder that the service and its workers can read."""
    with connect(server) as client:
        model = client.add_model(name, str(source.expanduser().absolute()))
    assert model.facts is not None, "a base model has facts"
    console.print(f"{model.id}: {model.facts.architecture}, {model.facts.parameters / 1e6:.1f} M parameters")


def _shape(facts: ModelFacts | None) -> tuple[str, ...]:
    if facts is None:
        return ("–",) * 4
    millions = f"{facts.parameters / 1e6:.1f} M"
    return millions, str(facts.layers), f"{facts.heads} ({facts.kv_heads})", str(facts.context)
