"""Print what goes with each model type of the zoo, as a table in Markdown: `python -m tests.zoo [TYPE …]`."""

from __future__ import annotations

import logging
import sys
import warnings

import transformers

from luthier.errors import Infeasible
from tests.zoo.build import build
from tests.zoo.declarations import DECLARATIONS
from tests.zoo.updates import UPDATES, by_nature
from workers.train.layout_probe import layout_of
from workers.train.try_out import try_update


def row(model_type: str) -> str:
    """Try all updates on the model type, and return its row of the table."""
    model = build(model_type)
    try:
        layout = layout_of(model)
    except Infeasible as error:
        return f"| `{model_type}` | no | | {error.message} |"
    tried = [update for update in UPDATES if by_nature(model, update)]
    refused = {update.kind: reason for update in tried if (reason := try_update(model, update)) is not None}
    prompts = "" if layout.batched_prompts else ", prompts one at a time"
    updates = "; ".join(f"`{kind}`: {cell(reason, model)}" for kind, reason in refused.items())
    return f"| `{model_type}` | yes | {layout.rows}{prompts} | {updates} |"


def cell(reason: str, model: transformers.PreTrainedModel) -> str:
    """Return a reason without what the row says already, in a form that is safe in a table."""
    return " ".join(reason.replace(type(model).__name__, "it").split()).replace("|", "\\|").replace("<", "&lt;")


def main(chosen: list[str]) -> None:
    """Print the table, each row as soon as it is known."""
    print("| model type | trains | rows | updates that it does not go with |\n|---|---|---|---|", flush=True)
    for model_type in chosen or DECLARATIONS:
        print(row(model_type), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    main(sys.argv[1:])
