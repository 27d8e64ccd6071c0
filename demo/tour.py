"""Run six jobs on real data and write docs/tour.md with their requests and outputs.

The second job repeats the first with an encoder. The whole tour takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from demo import fetch, tour_data
from demo.live import luthier, output, service
from demo.run import CACHE, MODEL
from luthier.api_types import FileObject, Job
from luthier.cli.show import console
from luthier.client import Client
from luthier.trial import JobState

PAGE: Final = Path("docs/tour.md")
ENCODER: Final = "all-minilm-l6-v2"
ENDED: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
COLUMNS: Final = 118  # of the tables
SMALL: Final = {"finalists": 2, "confirmations": 1}
INTRODUCTION: Final = """\
# A tour

<!-- not run on this page: `python -m demo.tour` runs everything for an hour and writes this page -->

Six jobs on real data, one after the other, on two CPU cores. Each request names a dataset (or an environment) and a
budget. Luthier chooses the learning algorithm, weight update, architecture and hyperparameters.

`{model}` is SmolLM2-135M-Instruct from a 4-bit file. `{encoder}` is all-MiniLM-L6-v2, an encoder without an
output head, which starts with a plain one. Budgets and datasets are small, so that the whole tour takes about an hour.
So the held-out splits are small too, and scores on a few rows are an indication, not a proof.

The service was started by `luthier serve`, the base models were registered by `luthier models add`, and `$API` is
`http://127.0.0.1:8420/v1`.
"""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One job of the tour. `data` fetches the dataset; without it the environment in `task` generates the rows."""

    title: str
    about: str
    data: Callable[[Path], Path] | None = None
    body: dict[str, Any] = field(default_factory=dict)


def search(trials: int, **pin: list[Any]) -> dict[str, Any]:
    return {"trials": trials, **SMALL, "pin": {"epochs": [1], "batch_size": [8]} | pin}


STOPS: Final = (
    Stop(
        title="Domain text",
        about="Paragraphs of Python's tutorial, to be learnt.",
        data=tour_data.paragraphs,
        body={"model": MODEL, "search": search(6)},
    ),
    Stop(
        title="Domain text, with an encoder",
        about="The same paragraphs. An encoder predicts masked words, and is judged by pseudo-perplexity "
        "(Salazar et al. 2020), which cannot be compared with a decoder's perplexity.",
        data=tour_data.paragraphs,
        body={"model": ENCODER, "search": {"trials": 8, **SMALL}},
    ),
    Stop(
        title="Instructions",
        about="Short instructions with their answers.",
        data=fetch.instructions,
        body={"model": MODEL, "search": search(5)},
    ),
    Stop(
        title="Conversations with tools",
        about="Several turns, in which the assistant calls functions and reads their results. The model's own chat "
        "template does not support tools, so Luthier uses an extended one.",
        data=tour_data.conversations,
        body={"model": MODEL, "search": search(5)},
    ),
    Stop(
        title="Preferences",
        about="Two answers to each instruction: the dataset's is chosen, the untuned model's is rejected.",
        data=tour_data.preferences,
        body={"model": MODEL, "search": search(5)},
    ),
    Stop(
        title="A verifiable task",
        about="Sums, generated and scored by reasoning-gym, without a file.",
        body={
            "model": MODEL,
            "task": {
                "environment": {
                    "name": "reasoning_gym/chain_sum",
                    "rows": 240,
                    "options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
                }
            },
            "search": search(5, grpo_group=[4], epochs=[0.4]),
        },
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=CACHE / "tour-home", help="home folder of the tour's service")
    parser.add_argument("--only", type=int, metavar="N", help="run only the Nth job and print its section")
    given = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    with service(given.home.absolute()) as server, Client(server) as client:
        luthier(server, "models", "add", MODEL, str(fetch.base_model(CACHE)))
        luthier(server, "models", "add", ENCODER, str(tour_data.encoder(CACHE).absolute()))
        chosen = STOPS if given.only is None else STOPS[given.only - 1 : given.only]
        sections = [_visit(stop, number, server, client) for number, stop in enumerate(chosen, given.only or 1)]
    if given.only is None:
        PAGE.write_text("\n".join([INTRODUCTION.format(model=MODEL, encoder=ENCODER), *sections]), "utf-8")
        console.print(f"Wrote {PAGE}")
    else:
        print("\n".join(sections))
    return 0


def _visit(stop: Stop, number: int, server: str, client: Client) -> str:
    """Run one job to its end and return its section of the page."""
    console.print(f"[bold]{number}. {stop.title}[/bold]")
    commands, body = [], dict(stop.body)
    if stop.data is not None:
        file = stop.data(CACHE)
        uploaded = _uploaded(file, client)
        body = {"training_file": uploaded.id, **body}
        commands.append(f"curl -sf $API/files -F purpose=fine-tune -F file=@{file.name}   # {uploaded.id}")
    commands.append(f"curl -sf $API/fine_tuning/jobs -H 'content-type: application/json' -d '{json.dumps(body)}'")
    job = _begun(stop, client) or client.create_job(**body, metadata={"tour": stop.title})
    while job.status not in ENDED:
        time.sleep(2)
        job = client.job(job.id)
    if job.status is not JobState.SUCCEEDED:
        sys.exit(f"Job {job.id} {job.status}: {job.error}")
    return "\n".join(
        [
            f"## {number}. {stop.title}\n\n{stop.about}\n",
            _block("sh", "\n".join(commands)),
            f"\nThe trials (`luthier trials {job.id}`):\n",
            _block("text", output(server, "trials", job.id, columns=COLUMNS)),
            f"\nThe result (`luthier best {job.id}`):\n",
            _block("text", output(server, "best", job.id, columns=COLUMNS)),
            "",
        ]
    )


def _uploaded(file: Path, client: Client) -> FileObject:
    known = [one for one in client.files() if one.filename == file.name]
    return known[0] if known else client.upload(file)


def _begun(stop: Stop, client: Client) -> Job | None:
    """Return the job of an earlier run in this home folder that is still active or succeeded, to continue the tour."""
    left = (*(state for state in JobState if state not in ENDED), JobState.SUCCEEDED)
    return next((job for job in client.jobs(metadata={"tour": stop.title}) if job.status in left), None)


def _block(language: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.rstrip().splitlines())
    return f"```{language}\n{lines}\n```"


if __name__ == "__main__":
    sys.exit(main())
