"""Run environments in a child process: `python -P -m luthier.environments list | rows`.

Their packages are large, and their generators may take any time, so the service runs them here and can kill them.
`rows` reads {"environment": …, "seed": …} and writes JSON Lines; `list` writes all environments. An error is written
as {"error": …}, with exit code 2.
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
    """Return the name, the summary and the JSON schemas of the options of each environment."""
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
