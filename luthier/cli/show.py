"""Output of the command line: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from luthier.api_types import Best, Expected, Job, Standing, Trial, TrialSample
from luthier.design import distinct
from luthier.metrics import cell, curve_phrases, phrases, seeds_count, shown
from luthier.task import Objective
from luthier.trial import JobState, Metrics, StageEnd, TrialState, rung_name

console = Console()
errors = Console(stderr=True)

UNTUNED: Final = 0  # the number of the untuned base, which has no seeds
ANSWER: Final = 240  # characters of an answer, on the terminal

CUT: Final[Mapping[StageEnd | None, str]] = {"budget": "cut by the budget", "user": "stopped by a user"}
TRIAL_COLOURS = {
    TrialState.COMPLETE: "green",
    TrialState.LEASED: "cyan",
    TrialState.FAILED: "red",
    TrialState.INFEASIBLE: "yellow",
    TrialState.PRUNED: "dim",
}
JOB_COLOURS = {JobState.SUCCEEDED: "green", JobState.FAILED: "red", JobState.RUNNING: "cyan"}


def as_json(value: BaseModel | Sequence[BaseModel]) -> None:
    """Print resources as JSON, a listing as an array."""
    if isinstance(value, BaseModel):
        print(value.model_dump_json(indent=2))
    else:
        print(json.dumps([item.model_dump(mode="json") for item in value], indent=2, ensure_ascii=False))


def duration(seconds: float) -> str:
    """Format seconds for people: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def show_expected(found: Expected) -> None:
    """Print what the budget of a job is expected to buy."""
    after = _count(float(f"{found.first_share * found.epochs:.2g}"), "epoch")
    first = "trained to the end" if found.first_share == 1 else f"first compared after {after}"
    guess = "" if found.calibrated_from else " (a guess: no trial was measured on such a device yet)"
    price = f" ({duration(found.repeat_seconds)})" if found.repeats else ""
    live = _count(found.workers, "live worker")
    where = live if found.workers else f"no live worker; estimated for {found.device}"
    console.print(
        f"Expected: 2 baselines and {_count(found.designs, 'design')}, {first}; {found.finished} trained to the end, "
        f"{_count(found.repeats, 'repeat')}{price}. About {duration(found.device_seconds)} of device time, "
        f"{duration(found.seconds)} in all, on {where}{guess}.",
        highlight=False,
    )
    if found.splits > 1:
        console.print(
            f"Few validation rows: the finalists are compared on {found.splits} splits of the rows, and each repeat "
            "trains on another one.",
            highlight=False,
        )
    if found.warning is not None:
        console.print(f"[yellow]{found.warning}[/yellow]", highlight=False)


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def jobs_table(jobs: Sequence[Job]) -> Table:
    table = Table(box=None, header_style="bold")
    for column in ("job", "created", "status", "trials"):
        table.add_column(column, no_wrap=True)
    table.add_column("recommended")
    table.add_column("model", overflow="fold")
    for job in jobs:
        progress = job.luthier
        best = standing(progress.best, progress.objective) if progress.best else "–"
        table.add_row(
            job.id,
            f"{datetime.fromtimestamp(job.created_at).astimezone():%d %b %H:%M}",
            Text("paused" if progress.paused else job.status, style=JOB_COLOURS.get(job.status, "")),
            f"{progress.trials_done}/{progress.trials_total}",
            best,
            job.model,
        )
    return table


def standing(best: Standing, objective: Objective) -> str:
    """Return the recommended trial in a few words: `#7: 0.61 bits per byte, perplexity 3.2 (n=3)`."""
    seeds = "" if best.number == UNTUNED else f" ({seeds_count(best.seeds)})"
    return f"#{best.number}: {phrases('headline', best.metrics, objective)}{seeds}"


def trials_table(trials: Sequence[Trial], recommended: str | None, objective: Objective | None = None) -> Table:
    """Return a table of trials. Scores of a repeated design are means over its `n` seeds; a repeat has its own.

    A base model that all of them share is shown only in the title.
    """
    bases = {trial.design.architecture.base for trial in trials}
    shared = bases.pop() if len(bases) == 1 else ""
    table = Table(
        title=f"base model: {shared}" if shared else None, title_justify="left", box=None, header_style="bold"
    )
    table.add_column("#", justify="right")
    table.add_column("design", overflow="fold")
    table.add_column("state")
    metrics = shown("terminal", *(trial.metrics for trial in trials))
    for column in (*(metric.heading for metric in metrics), "n", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for trial, summary in zip(trials, distinct([trial.design for trial in trials]), strict=True):
        table.add_row(
            str(trial.number),
            _design(trial, summary, shared) + (" ★" if trial.id == recommended else ""),
            Text(state_of(trial), style=TRIAL_COLOURS.get(trial.state, "")),
            *(cell(metric.value(_scored(trial))) for metric in metrics),
            str(trial.seeds or "") if trial.number != UNTUNED and trial.confirms is None else "",
            f"{trial.device_seconds:.0f}",
            style="bold" if trial.id == recommended else "",
        )
        if trial.measured and trial.metrics is None:
            rung = f"at {rung_name(trial.design, len(trial.measured) - 1)}, on fewer rows"
            table.add_row("", Text(f"{rung}: {phrases('log', trial.measured[-1], objective)}", style="dim"))
        for score in trial.stages:
            stage = f"after stage {score.stage + 1}, {score.algorithm} {score.update}"
            table.add_row("", Text(f"{stage}: {curve_phrases(score.model_dump())}", style="dim"))
        for words in ends(trial):
            table.add_row("", Text(words, style="dim"))
        if trial.error:
            table.add_row("", Text(trial.error, style="dim"))
    return table


def ends(trial: Trial) -> Iterator[str]:
    """Yield why the training ended where it did not end by itself."""
    for index, length in enumerate(trial.lengths or (), start=1):
        if length.ended in CUT:
            still = ", while its validation score still improved" if length.improving else ""
            stage = f"stage {index} " if len(trial.design.stages) > 1 else ""
            yield f"{stage}{CUT[length.ended]} at step {length.trained}{still}"


def _scored(trial: Trial) -> Metrics | None:
    return trial.metrics if trial.confirms is not None else trial.mean_metrics or trial.metrics


def state_of(trial: Trial) -> str:
    """Return the state as text, with the rung of a paused or pruned trial."""
    if trial.paused and trial.rung is not None:
        return f"paused at {rung_name(trial.design, trial.rung)}"
    if trial.state is TrialState.PRUNED and trial.rung is not None:
        return f"stopped at {rung_name(trial.design, trial.rung)}"
    return {TrialState.LEASED: "running", TrialState.PRUNED: "stopped"}.get(trial.state, trial.state.value)


def _design(trial: Trial, summary: str, shared: str) -> str:
    if trial.confirms is not None:
        return f"repeat of #{trial.confirms} with seed {trial.seed}"
    return summary.removeprefix(shared).lstrip(" →,")


def best_table(best: Best) -> Table:
    """Return a table of the recommended trial and the baselines on both splits; values are means over the seeds."""
    table = Table(box=None, header_style="bold")
    table.add_column("", no_wrap=True)
    metrics = shown("terminal", best.metrics)
    for split in ("", "test "):
        for metric in metrics:
            table.add_column(split + metric.heading, justify="right")
    of_default = "not complete" if best.default_metrics is None else seeds_count(best.default_seeds)
    lines = [
        ("untuned base", best.base_metrics, best.base_test_metrics),
        (f"LoRA default ({of_default})", best.default_metrics, best.default_test_metrics),
    ]
    if best.number != UNTUNED:
        own = (f"trial {best.number} ({seeds_count(best.seeds)})", best.metrics, best.test_metrics)
        lines.insert(0, own)
    for label, validation, test in lines:
        cells = [cell(metric.value(scored)) for scored in (validation, test) for metric in metrics]
        table.add_row(label, *cells)
    return table


def answers(samples: Sequence[TrialSample], name: str) -> Iterator[Table]:
    """Yield a table for each held-out prompt, with the base model's answer beside that of the model called `name`."""
    for sample in samples:
        table = Table(box=None, show_header=False, title=_line(sample.prompt), title_justify="left")
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        table.add_row("untuned base", Text(_line(sample.base_answer or "–")))
        table.add_row(name, Text(_line(sample.answer or "–")))
        if sample.reference:
            table.add_row("reference", Text(_line(sample.reference)))
        yield table


def _line(text: str) -> str:
    """Return a text as one line of at most `ANSWER` characters."""
    whole = " ".join(text.split())
    return whole if len(whole) <= ANSWER else f"{whole[: ANSWER - 1]}…"
