"""Commands for jobs: submit, list, follow, inspect and export."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier.algorithms import Algorithm
from luthier.api_types import Best, Job
from luthier.cli import schedules
from luthier.cli.environment import read_environment
from luthier.cli.follow import follow as follow_job
from luthier.cli.options import DEFAULT_SERVER, JsonOption, ServerOption, connect, read_grader
from luthier.cli.options import GRADER_HELP as GRADER_HELP
from luthier.cli.show import (
    UNTUNED,
    answers,
    as_json,
    best_table,
    console,
    jobs_table,
    show_expected,
    trials_table,
)
from luthier.client import Client
from luthier.errors import NotFound, UserError
from luthier.metrics import phrases, seeds_count
from luthier.trial import JobState
from luthier.updates import Update
from luthier.values import kinds

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job id, or `last` for the newest one.")]
TrialOption = Annotated[
    str | None, typer.Option("--trial", metavar="N", help="Number or id of another trial (default: the recommended).")
]
ANSWERS_SHOWN = 2  # at the end of a followed job


class Goal(StrEnum):
    AUTO = "auto"
    DOMAIN = "domain"
    BEHAVIOUR = "behaviour"


class Objective(StrEnum):
    AUTO = "auto"
    PERPLEXITY = "perplexity"
    REWARD = "reward"


class LearningRateSchedule(StrEnum):
    COSINE = "cosine"
    CONSTANT = "constant"


class OnBadRows(StrEnum):
    REFUSE = "refuse"
    DROP = "drop"


class Format(StrEnum):
    ADAPTER = "adapter"
    MERGED = "merged"
    GGUF = "gguf"


def submit(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Dataset: JSONL, JSON, CSV, Parquet or text. Not with --environment.", exists=True, dir_okay=False
        ),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="RL environment instead of a dataset; see `luthier environments`."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the environment; repeat for several.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Rows that the environment generates (default: 256).")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only search this base model (default: all); repeat for several."),
    ] = None,
    task: Annotated[
        Goal, typer.Option(help="Goal: `domain` learns the content of the text, `behaviour` learns to answer like it.")
    ] = Goal.AUTO,
    trials: Annotated[int | None, typer.Option(help="Budget: number of designs to try (default: 24).")] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget: device-seconds, summed over all workers.")] = None,
    finalists: Annotated[
        int | None, typer.Option(help="Number of best designs to train to the end and repeat (default: 3).")
    ] = None,
    confirmations: Annotated[
        int | None,
        typer.Option(help="Repeats of each finalist and of the LoRA default, with other seeds (default: 2)."),
    ] = None,
    objective: Annotated[Objective, typer.Option(help="Metric to optimise for.")] = Objective.AUTO,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|IMPORT-PATH",
            help="What proposes designs: luthier (the default), tpe, gp, random, or an Optuna sampler that is allowed.",
        ),
    ] = None,
    grader: Annotated[str | None, typer.Option(metavar="NAME|JSON|@FILE", help=GRADER_HELP)] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Only search this recipe: {', '.join(kinds(Algorithm))}, or up to three in order, such as sft+dpo. "
            "Repeat for several.",
        ),
    ] = None,
    update: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Only search this weight update: {', '.join(kinds(Update))} (qlora needs CUDA). Repeat for several.",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over the training rows: at most so many, or exactly so many with --schedule cosine "
            "(default: a limit from 3 to 60, by the number of rows)."
        ),
    ] = None,
    schedule: Annotated[
        list[LearningRateSchedule] | None,
        typer.Option(
            help="Learning rate after the warm-up: constant with averaged weights (the default), or cosine decay."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows in one optimiser step (default: searched).")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate, e.g. 3e-4 (default: searched, as a multiple of each update's default)."),
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="Validation file (default: split off the dataset).")] = None,
    on_bad_rows: Annotated[
        OnBadRows, typer.Option(help="Rows that a chat template cannot show: refuse the job, or drop them.")
    ] = OnBadRows.REFUSE,
    suffix: Annotated[str | None, typer.Option(help="Suffix for the name of the fine-tuned model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow the job until it ends.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the budget is expected to buy; create no job.")
    ] = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a job: search for the best design for a dataset or an RL environment, and train it."""
    world = read_environment(environment, option or (), rows)
    if (file is None) == (world is None):
        raise UserError("Give either a dataset file or --environment.", param="FILE")
    pin = {
        "algorithm": algorithm,
        "update": update,
        "model": model,
        "epochs": _one(epochs),
        "schedule": schedule,
        "batch_size": _one(batch_size),
        "learning_rate": _one(learning_rate),
    }
    search: dict[str, Any] = {"objective": objective, "pin": {k: v for k, v in pin.items() if v}}
    settings = {
        "trials": trials,
        "device_seconds": seconds,
        "finalists": finalists,
        "confirmations": confirmations,
        "sampler": sampler,
    }
    search |= {k: v for k, v in settings.items() if v is not None}
    body: dict[str, Any] = {"search": search, "task": {"goal": task}, "on_bad_rows": on_bad_rows}
    if grader is not None:
        body["task"]["grader"] = read_grader(grader)
    if world is not None:
        body["task"]["environment"] = world
    body |= {k: v for k, v in {"suffix": suffix, "seed": seed}.items() if v is not None}
    with connect(server) as client:
        if grader is not None:
            client.validate_grader(body["task"]["grader"])  # before a large file is uploaded
        if file is not None:
            body["training_file"] = _uploaded(client, file, quiet=json)
        if validation is not None:
            body["validation_file"] = _uploaded(client, validation, quiet=json)
        if dry_run:
            _preview(client, body, json)
            return
        job = client.create_job(**body)
        if job.luthier.expected is not None and not json:
            show_expected(job.luthier.expected)
        if not follow:
            if json:
                as_json(job)
            else:
                said = None if job.luthier.expected is None else job.luthier.expected.warning
                for event in reversed(client.events(job.id)):
                    if event.level == "warn" and event.message != said:
                        console.print(event.message, style="yellow", highlight=False, markup=False)
                console.print(f"{job.id} is {job.status}. `luthier trials {job.id}` shows its progress.")
            return
        console.print(f"job {job.id}")
        ended = follow_job(client, job.id)
        if ended is not None:
            _conclude(client, ended, json)


def _uploaded(client: Client, file: Path, *, quiet: bool) -> str:
    """Upload a dataset and return its id; show what became of its rows, unless `quiet`."""
    uploaded = client.upload(file)
    for note in () if quiet else client.dataset(uploaded.id).notes:
        console.print(f"{file.name}: {note}", style="yellow", highlight=False, markup=False)
    return uploaded.id


def _preview(client: Client, body: dict[str, Any], json: bool) -> None:
    """Show what a job would buy; exit with 1 if the request cannot become a job."""
    if "training_file" not in body:
        raise UserError("--dry-run needs a dataset file, not an environment.", param="FILE")
    space = client.design_space(**body, check=True)
    if json:
        as_json(space)
    elif space.problem is not None:
        console.print(f"[red]{space.problem.message}[/red]", highlight=False)
    elif space.expected is not None:
        show_expected(space.expected)
    for warning in () if json or space.problem is not None else space.warnings:
        console.print(warning, style="yellow", highlight=False, markup=False)
    if space.problem is not None:
        raise typer.Exit(1)


def _one(value: float | None) -> list[Any] | None:
    return None if value is None else [value]


def _conclude(client: Client, job: Job, json: bool) -> None:
    """Show the result of a finished job; exit with 1 if it did not succeed."""
    if job.status is not JobState.SUCCEEDED:
        reason = f": {job.error.message}" if job.error else ""
        console.print(f"[red]Job {job.status}{reason}[/red]", highlight=False)
        raise typer.Exit(1)
    found = client.best(job.id)
    if json:
        as_json(found)
        return
    console.print(trials_table(client.trials(job.id), found.trial, found.objective))
    console.print(f"\n[bold]{_title(found)}[/bold]  #{found.number}: {found.summary}\n", highlight=False)
    console.print(best_table(found))
    samples = client.samples(job.id, found.trial) if found.number != UNTUNED else []
    for table in answers(samples[:ANSWERS_SHOWN], f"trial {found.number}"):
        console.print()
        console.print(table)
    _recommend(found)
    console.print(f"\n`luthier report {job.id}` explains the result.")
    other = f" --trial {found.winner}" if found.number == UNTUNED and found.winner is not None else ""
    console.print(f"`luthier export {job.id} DIR{other}` writes the model, ", end="")
    console.print(f'`luthier generate {job.id} "prompt"{other}` tries it.')


def _title(found: Best) -> str:
    """Return what the named trial is: the recommended one, or the best one where there is no recommendation."""
    given = found.recommendation is None or found.recommendation.number is not None
    return "recommended" if given else "best on the validation rows"


def _recommend(found: Best) -> None:
    """Print what the report recommends; nothing where that is unknown."""
    if found.recommendation is not None:
        console.print()
        console.print(" ".join(found.recommendation.words), highlight=False, markup=False)


def list_jobs(
    tag: Annotated[list[str] | None, typer.Option(help="Only jobs with this tag; repeat for several.")] = None,
    schedule: Annotated[
        str | None, typer.Option(metavar="SCHEDULE", help="Only jobs of this schedule (name or id).")
    ] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with connect(server) as client:
        schedule_id = None if schedule is None else schedules.resolve(client, schedule).id
        jobs = client.jobs(tags=tag or (), schedule_id=schedule_id)
    if json:
        as_json(jobs)
    else:
        console.print(jobs_table(jobs))


def trials(job: JobArgument, server: ServerOption = None, json: JsonOption = False) -> None:
    """List the trials of a job: designs, states and scores on the validation rows."""
    with connect(server) as client:
        found = client.job(resolve(client, job))
        listing = client.trials(found.id)
    if json:
        as_json(listing)
        return
    recommended = found.luthier.best.trial if found.luthier.best else None
    console.print(trials_table(listing, recommended, found.luthier.objective))


def best(job: JobArgument, trial: TrialOption = None, server: ServerOption = None, json: JsonOption = False) -> None:
    """Show the recommended design of a job, compared with the untuned base and the plain LoRA default."""
    with connect(server) as client:
        found = client.best(resolve(client, job), trial)
    if json:
        as_json(found)
        return
    seeds = "" if found.number == UNTUNED else f", {seeds_count(found.seeds)}"
    scores = phrases("headline", found.metrics, found.objective)
    console.print(f"[bold]#{found.number}[/bold] {found.summary}  ({scores}{seeds})\n", highlight=False)
    console.print(best_table(found))
    _recommend(found)
    kinds = ", ".join(sorted(artifact.kind for artifact in found.artifacts)) or "none"
    console.print(f"\nArtifacts: {kinds}. `luthier report {job}` explains the result.")


def export(
    job: JobArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder to write to.")],
    kind: Annotated[
        Format,
        typer.Option(
            "--format",
            help="merged: the whole model; adapter: only the adapter (the only format of prompt and prefix tuning); "
            "gguf: one file for llama.cpp and Ollama.",
        ),
    ] = Format.MERGED,
    trial: TrialOption = None,
    server: ServerOption = None,
) -> None:
    """Write the recommended model to a folder: weights, tokenizer, model card and reproduction script."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists and is not an empty folder.", param="DIR")
    with connect(server) as client:
        client.download(resolve(client, job), directory, kind.value, trial)
    console.print(f"Wrote the {kind} model to {directory}. Its README.md explains how to use it.")


def generate(
    job: JobArgument,
    prompt: Annotated[str, typer.Argument(help="Prompt for the model.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of the answer in tokens.")] = 128,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System message before the prompt.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Sampling temperature; 0: greedy.")] = 0.0,
    base: Annotated[bool, typer.Option("--base", help="Use the untuned base model instead.")] = False,
    trial: TrialOption = None,
    server: ServerOption = None,
) -> None:
    """Answer a prompt with the recommended model of a job, on one of the workers."""
    with connect(server) as client:
        job_id = resolve(client, job)
        found = client.best(job_id, trial)
        model = found.design.architecture.base if base else found.model
        if model is None:
            raise NotFound(f"The weights of trial {found.number} of {job_id} are not stored.", param="--trial")
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": prompt})
        for piece in client.stream_chat(model, messages, max_tokens=max_new_tokens, temperature=temperature):
            typer.echo(piece, nl=False)
        typer.echo()


def cancel(job: JobArgument, server: ServerOption = None) -> None:
    """Cancel a job; its finished trials are kept."""
    with connect(server) as client:
        job_id = resolve(client, job)
        client.cancel(job_id)
    console.print(f"{job_id} is cancelled.")


def pause(job: JobArgument, server: ServerOption = None) -> None:
    """Pause a job: running trials save a checkpoint and stop, and no trial starts."""
    with connect(server) as client:
        job_id = resolve(client, job)
        client.pause(job_id)
    console.print(f"{job_id} is paused. `luthier resume {job_id}` resumes it.")


def resume(job: JobArgument, server: ServerOption = None) -> None:
    """Resume a paused job; each trial continues from its checkpoint."""
    with connect(server) as client:
        job_id = resolve(client, job)
        client.resume(job_id)
    console.print(f"{job_id} is resumed.")


def extend(
    job: JobArgument,
    trials: Annotated[int | None, typer.Option(min=1, help="Additional designs to try.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Additional device-seconds.")] = None,
    deadline: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M"], help="A later deadline; local time without an offset."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow the job until it ends.")] = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Continue a search that has ended, with more budget. The trials so far are kept and not trained again."""
    if trials is None and seconds is None and deadline is None:
        raise UserError("Give --trials, --seconds or --deadline.", param="--trials")
    with connect(server) as client:
        until = None if deadline is None else deadline.astimezone()
        found = client.extend(resolve(client, job), trials=trials, device_seconds=seconds, deadline=until)
        search = found.luthier.search
        if not follow:
            if json:
                as_json(found)
            else:
                limit = "" if search.device_seconds is None else f", {search.device_seconds:g} device-seconds"
                console.print(f"{found.id} continues. Its budget is now {search.trials} trials{limit}.")
            return
        ended = follow_job(client, found.id)
        if ended is not None:
            _conclude(client, ended, json)


def resolve(client: Client, job: str) -> str:
    """Return the id of a job; `last` is the newest one. Raises NotFound if there is no job."""
    if job != "last":
        return job
    jobs = client.jobs(limit=1)
    if not jobs:
        raise NotFound(f"There are no jobs yet at {client.base_url or DEFAULT_SERVER}.", param="JOB")
    return jobs[0].id
