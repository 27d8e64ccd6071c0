"""Templates of the files in an export: model card and reproduction script. rewards.py is copied as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from luthier.updates import AdapterUpdate


def render(template: str, **facts: Any) -> str:
    """Render a template. Raises jinja2.UndefinedError if it uses a variable that is not in `facts`."""
    return _ENVIRONMENT.get_template(template).render(facts)


def _cell(text: str) -> str:
    """Return a user's text in a form that is safe in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


_ENVIRONMENT = Environment(  # for Markdown and Python, which need no HTML escaping
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)
_ENVIRONMENT.filters |= {"literal": json.dumps, "cell": _cell}  # JSON strings are also valid Python and YAML
_ENVIRONMENT.tests |= {"adapter": lambda update: isinstance(update, AdapterUpdate)}
