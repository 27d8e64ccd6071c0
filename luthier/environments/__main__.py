"""Environments in a process of their own: `python -P -m luthier.environments list | rows`.

The packages behind them are large, and their generators may take any time: the service starts this, and ends it.
`rows` reads {"environment": …, "seed": …} and writes JSON Lines; `list` writes what there is. A refusal is written as
{"error": …}, with exit code 2.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import Any

from pydantic import BaseModel

from luthier.dataset import write_rows
from luthier.environments.registry import make, offers
from luthier.errors import LuthierError
from luthier.task import EnvironmentSpec


class Order(BaseModel):
    environment: EnvironmentSpec
    seed: int


def listing() -> list[dict[str, Any]]:
    """Name, summary, and each option's JSON schema."""
    return [
        {
            "name": offer.name,
            "summary": offer.summary,
            "options": offer.options.model_json_schema().get("properties", {}),
        }
        for offer in offers()
    ]


def main(command: str) -> int:
    out = sys.stdout
    try:
        with redirect_stdout(sys.stderr):  # generators print
            if command == "list":
                written = json.dumps(listing()).encode()
            else:
                order = Order.model_validate_json(sys.stdin.read())
                rows = make(order.environment).rows(order.environment.rows, order.seed)
                written = write_rows(map(dict, rows))
    except LuthierError as error:
        out.write(json.dumps(error.body()))
        return 2
    out.buffer.write(written)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
