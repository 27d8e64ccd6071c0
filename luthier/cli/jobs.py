"""Commands about jobs: submit one, watch it, look at its trials, take the result home."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier.api_types import Job
from luthier.cli import schedules
from luthier.cli.environment import read_environment
from luthier.cli.follow import follow as follow_job
from luthier.cli.options import DEFAULT_SERVER, JsonOption, ServerOption, connect, read_grader
from luthier.cli.options import GRADER_HELP as GRADER_HELP
from luthier.cli.show import as_json, best_table, console, jobs_table, trials_table
from luthier.client import Client
from luthier.errors import NotFound, UserError
from luthier.metrics import phrases
from luthier.trial import JobState

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job id, or `last` for the newest one.")]


class Goal(StrEnum):
    AUTO = "auto"
    DOMAIN = "domain"
    BEHAVIOUR = "behaviour"


class Objective(StrEnum):
    AUTO = "auto"
    PERPLEXITY = "perplexity"
    REWARD = "reward"


class Format(StrEnum):
    ADAPTER = "adapter"
    MERGED = "merged"
    GGUF = "gguf"


def submit(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Dataset: JSONL, JSON, CSV, Parquet or text. None with --environment.", exists=True, dir_okay=False
        ),
    ] = None,
    environment: Annotated[
        str | None, typer.Option(metavar="NAME", help="What makes rows and rewards; see `luthier environments`.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the environment; repeat for several.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="How many rows the environment makes (default: 256).")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Base model to start from; repeat for several.")] = None,
    task: Annotated[Goal, typer.Option(help="What the model is to learn.")] = Goal.AUTO,
    trials: Annotated[int | None, typer.Option(help="How many designs to try (default: 24).")] = None,
    seconds: Annotated[float | None, typer.Option(help="Device-seconds to spend, over all workers.")] = None,
    finalists: Annotated[
        int | None, typer.Option(help="How many of the best are trained to the end and confirmed (default: 3).")
    ] = None,
    confirmations: Annotated[
        int | None, typer.Option(help="Further seeds that the finalists are trained from (default: 2).")
    ] = None,
    objective: Annotated[Objective, typer.Option(help="What the best design is best at.")] = Objective.AUTO,
    grader: Annotated[str | None, typer.Option(metavar="NAME|JSON|@FILE", help=GRADER_HELP)] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep to this: clm, sft, dpo, ipo, simpo, sft+dpo, sft+ipo, sft+simpo or orpo; with a grader also "
            "grpo, rloo, raft, sft+grpo, sft+rloo or sft+raft."
        ),
    ] = None,
    update: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep to this: full, lora, rslora, dora, top_layers, layernorm, bitfit, pissa, lora_plus, vera, ia3, "
            "oft, adalora, prompt, prefix or (on CUDA) qlora."
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training rows.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows in one optimiser step.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Held-out file; without it a part is split off.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the fine-tuned model's name.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Watch the job until it ends.")] = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a dataset or an environment: Luthier searches the designs that fit it and trains the best one."""
    world = read_environment(environment, option or (), rows)
    if (file is None) == (world is None):
        raise UserError("give a dataset file or --environment, and not both", param="FILE")
    pin = {
        "algorithm": algorithm,
        "update": update,
        "model": model,
        "epochs": _one(epochs),
        "batch_size": _one(batch_size),
    }
    search: dict[str, Any] = {"objective": objective, "pin": {k: v for k, v in pin.items() if v}}
    limits = {"trials": trials, "device_seconds": seconds, "finalists": finalists, "confirmations": confirmations}
    search |= {k: v for k, v in limits.items() if v is not None}
    body: dict[str, Any] = {"search": search, "task": {"goal": task}}
    if grader is not None:
        body["task"]["grader"] = read_grader(grader)
    if world is not None:
        body["task"]["environment"] = world
    body |= {k: v for k, v in {"suffix": suffix, "seed": seed}.items() if v is not None}
    with connect(server) as client:
        if grader is not None:
            client.validate_grader(body["task"]["grader"])  # before a large file is on its way
        if file is not None:
            body["training_file"] = client.upload(file).id
        if validation is not None:
            body["validation_file"] = client.upload(validation).id
        job = client.create_job(**body)
        if not follow:
            if json:
                as_json(job)
            else:
                console.print(f"{job.id} is {job.status}; watch it with `luthier trials {job.id}`")
            return
        console.print(f"job {job.id}")
        ended = follow_job(client, job.id)
        if ended is not None:
            _conclude(client, ended, json)


def _one(value: float | None) -> list[Any] | None:
    return None if value is None else [value]


def _conclude(client: Client, job: Job, json: bool) -> None:
    """Show what a finished job has found, and exit 1 when it did not succeed."""
    if job.status is not JobState.SUCCEEDED:
        reason = f": {job.error.message}" if job.error else ""
        console.print(f"[red]the job {job.status}{reason}[/red]", highlight=False)
        raise typer.Exit(1)
    winner = client.best(job.id)
    if json:
        as_json(winner)
        return
    console.print(trials_table(client.trials(job.id), winner.trial))
    console.print(f"\n[bold]best design[/bold]  #{winner.number}: {winner.summary}\n", highlight=False)
    console.print(best_table(winner))
    console.print(f"\n`luthier report {job.id}` says how sure that is and what else was tried")
    console.print(f'`luthier export {job.id} DIR` writes the model, `luthier generate {job.id} "prompt"` tries it')


def list_jobs(
    tag: Annotated[list[str] | None, typer.Option(help="Only jobs with this tag; repeat for several.")] = None,
    schedule: Annotated[
        str | None, typer.Option(metavar="SCHEDULE", help="Only jobs that this schedule made, by its name or id.")
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
    """Show a job's trials: designs, states and scores on the validation rows."""
    with connect(server) as client:
        found = client.job(resolve(client, job))
        listing = client.trials(found.id)
    if json:
        as_json(listing)
        return
    console.print(trials_table(listing, found.luthier.best.trial if found.luthier.best else None))


def best(job: JobArgument, server: ServerOption = None, json: JsonOption = False) -> None:
    """Show a job's best design beside the untuned base and the plain LoRA default."""
    with connect(server) as client:
        winner = client.best(resolve(client, job))
    if json:
        as_json(winner)
        return
    console.print(
        f"[bold]#{winner.number}[/bold] {winner.summary}  ({phrases('headline', winner.metrics)})\n", highlight=False
    )
    console.print(best_table(winner))
    kinds = ", ".join(sorted(artifact.kind for artifact in winner.artifacts)) or "none"
    console.print(f"\nartifacts: {kinds}; `luthier report {job}` says how sure this is and why it was chosen")


def export(
    job: JobArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder to write to.")],
    kind: Annotated[
        Format,
        typer.Option(
            "--format",
            help="The whole model, the adapter (prompt and prefix have nothing else), or one file for llama.cpp and "
            "Ollama.",
        ),
    ] = Format.MERGED,
    server: ServerOption = None,
) -> None:
    """Write the best design's model: weights, tokenizer, model card and reproduction script."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists and is not an empty folder", param="DIR")
    with connect(server) as client:
        client.download(resolve(client, job), directory, kind.value)
    console.print(f"wrote the {kind} model to {directory}; its README.md says how to use it")


def generate(
    job: JobArgument,
    prompt: Annotated[str, typer.Argument(help="What to ask the model.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 128,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system message before the prompt.")] = None,
    temperature: Annotated[
        float, typer.Option(min=0, max=2, help="0: always the likeliest token; 1: as the model was trained.")
    ] = 0.0,
    base: Annotated[bool, typer.Option("--base", help="Let the untuned base model of the best one answer.")] = False,
    server: ServerOption = None,
) -> None:
    """Let the best model of a job answer a prompt, on one of the workers."""
    with connect(server) as client:
        job_id = resolve(client, job)
        winner = client.best(job_id)
        model = winner.design.architecture.base if base else winner.model
        if model is None:
            raise NotFound(f"the weights of the best trial of {job_id} are not kept any more", param="JOB")
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": prompt})
        for piece in client.stream_chat(model, messages, max_tokens=max_new_tokens, temperature=temperature):
            typer.echo(piece, nl=False)
        typer.echo()


def cancel(job: JobArgument, server: ServerOption = None) -> None:
    """Stop a job; its finished trials stay."""
    with connect(server) as client:
        job_id = resolve(client, job)
        client.cancel(job_id)
    console.print(f"{job_id} is cancelled")


def pause(job: JobArgument, server: ServerOption = None) -> None:
    """Let a job rest: running trials are given back with a checkpoint, and nothing is started."""
    with connect(server) as client:
        job_id = resolve(client, job)
        client.pause(job_id)
    console.print(f"{job_id} is paused; `luthier resume {job_id}` goes on with it")


def resume(job: JobArgument, server: ServerOption = None) -> None:
    """Go on with a paused job, each trial from where it stopped."""
    with connect(server) as client:
        job_id = resolve(client, job)
        client.resume(job_id)
    console.print(f"{job_id} goes on")


def resolve(client: Client, job: str) -> str:
    """The id of a job, of the newest one for `last`. Raises NotFound where there is none."""
    if job != "last":
        return job
    jobs = client.jobs(limit=1)
    if not jobs:
        raise NotFound(f"there is no job yet at {client.base_url or DEFAULT_SERVER}", param="JOB")
    return jobs[0].id
