"""The texts that travel with an exported model. `render` fills one of the templates beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from luthier.design import AdapterUpdate


def render(template: str, **facts: Any) -> str:
    """The text of a template. Raises jinja2.UndefinedError for a fact that the template needs and does not get."""
    return _ENVIRONMENT.get_template(template).render(facts)


def _literal(value: str) -> str:
    """A string as Python, JSON and YAML write it alike."""
    return json.dumps(value)


def _cell(text: str) -> str:
    """A user's text as it can stand in one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


_ENVIRONMENT = Environment(  # the texts are Markdown and Python: there is nothing to escape as in HTML
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)
_ENVIRONMENT.filters |= {"literal": _literal, "cell": _cell}
_ENVIRONMENT.tests |= {"adapter": lambda update: isinstance(update, AdapterUpdate)}
