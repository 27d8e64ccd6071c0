"""Templates of graders: `{{item.path}}` is a value of the row, `{{sample.path}}` a value of the model's answer.

Templates are plain substitution: they run no code, and a substituted value is never expanded again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from luthier.errors import GraderFault

_TEMPLATE: Final = re.compile(r"\{\{([^{}]*)\}\}")
_SAMPLE: Final = ("output_text", "output_json")


def sample_of(answer: str) -> dict[str, Any]:
    """Return the fields of an answer for templates: `output_text`, and `output_json` if it is valid JSON."""
    try:
        return {"output_text": answer, "output_json": json.loads(answer)}
    except (ValueError, RecursionError):
        return {"output_text": answer}


def fill(template: str, *, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """Substitute the values: strings unchanged, anything else as JSON. Numbers in a path index lists.

    Raises GraderFault naming a path that does not exist.
    """
    roots = {"item": item, "sample": sample}
    return _TEMPLATE.sub(lambda found: _look_up(found[1].strip(), roots), template)


def check_paths(template: str) -> None:
    """Raise GraderFault for a path that no row and no answer can have."""
    for found in _TEMPLATE.finditer(template):
        path = found[1].strip()
        root, *keys = path.split(".")
        if root not in ("item", "sample") or not keys:
            raise _unknown(path, "expected a path that starts with `item.` or `sample.`")
        if root == "sample" and keys[0] not in _SAMPLE:
            raise _unknown(path, f"there is no {keys[0]!r}; found {', '.join(f'`{name}`' for name in _SAMPLE)}")


def _look_up(path: str, roots: Mapping[str, Any]) -> str:
    value: Any = roots
    keys = path.split(".")
    if len(keys) < 2:
        raise _unknown(path, "expected a path that starts with `item.` or `sample.`")
    for key in keys:
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            known = ", ".join(f"`{name}`" for name in list(value)[:12]) if isinstance(value, Mapping) else "nothing"
            raise _unknown(path, f"there is no {key!r}; found {known or 'nothing'}")
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise GraderFault(f"`{path}` is nested too deeply to be written as text") from error


def _unknown(path: str, why: str) -> GraderFault:
    of_answer = path.split(".")[:2] == ["sample", "output_json"]  # depends on the answer
    return GraderFault(
        f"The template `{{{{{path}}}}}` cannot be filled: {why}",
        kind="sample_parse_error" if of_answer else "invalid_variable_error",
    )
