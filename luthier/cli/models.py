"""`luthier models`: base models and fine-tuned models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from luthier.api_types import Model
from luthier.cli.options import JsonOption, ServerOption, connect
from luthier.cli.show import as_json, console
from luthier.models.base_model import ModelFacts
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
    for column in ("model", "parameters", "layers", "heads (KV)", "context", "from"):
        table.add_column(column)
    for model in models:
        table.add_row(model.id, *_shape(model.facts), _source(model))
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
        folder = local_folder(_absolute(source), home.expanduser().absolute())
        model = client.add_model(name, str(folder))
    assert model.facts is not None, "a base model has facts"
    console.print(
        f"{model.id}: {model.facts.architecture}, {model.facts.parameters / 1e6:.1f} M parameters"
        + (f", de-quantised from {model.facts.quantised}" if model.facts.quantised else "")
    )


def _absolute(source: str) -> str:
    """Return an absolute path, or the hub id unchanged if no such path exists."""
    path = Path(source).expanduser()
    is_path = path.exists() or path.suffix == ".gguf" or not HUB_ID.fullmatch(source)
    return str(path.absolute()) if is_path else source


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
