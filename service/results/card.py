"""What a downloaded model card adds to the worker's: what is known only once the whole search is.

The worker writes the card when its own trial ends, with the scores of that seed. The section of this module has the
means over the seeds, the baselines, the recommendation, the learning rates with their multipliers, and a few answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from luthier.metrics import cell, mean_metrics, seeds_count, shown
from luthier.store import Connection, models
from luthier.store.rows import TrialRecord
from luthier.trial import Metrics
from search.space.learning_rate import rate_words
from service.jobs import history
from service.results import trials as views
from service.results.report_html import plain
from service.results.weights import Named

ANSWERS = 3
_SPLITS = (
    "Each further seed was trained and validated on another split of the training and validation rows",
    "(cross-validation); the untuned base was validated on the first split only. The test rows are the same for all.",
)


def section(c: Connection, named: Named) -> str:
    """Return the section as Markdown, with a blank line before it."""
    trial, rows = named.trial, named.rows
    untuned, default = history.BASELINES
    lines = [("this design", trial.number)]
    lines += [("plain LoRA default", default)] if trial.number != default else []
    lines += [("untuned base", untuned)]
    table = [(name, number, history.seeds(rows, number)) for name, number in lines]
    scored = [(name, number, _means(seeds), len(seeds)) for name, number, seeds in table if seeds]
    specs = shown("card", *(validation for _, _, (validation, _), _ in scored))
    heads = [head for spec in specs for head in (spec.label_of(scored[0][2][0]), "test")]
    parts = [
        "",
        "## Over all seeds",
        "",
        f"Trial {trial.number} of job `{named.job.id}`. Scores are means over the seeds of a design, n of them; the",
        "weights here are those of the first.",
        *(_SPLITS if any(named.job.split_of(seed) for _, _, seeds in table for seed in seeds) else ()),
        "",
        f"| | n | {' | '.join(heads)} |",
        f"| --- | --- |{' ---: |' * len(heads)}",
    ]
    for name, number, means, seeds in scored:
        count = seeds_count(seeds) if number != untuned else "–"
        cells = [cell(spec.value(found)) for spec in specs for found in means]
        parts.append(f"| {name} (trial {number}) | {count} | {' | '.join(cells)} |")
    facts = {entry.name: entry.facts for entry in models.list_(c)}.get(trial.design.architecture.base)
    width = None if facts is None else facts.hidden_size
    rates = ", then ".join(f"{rate_words(stage, width)} for {stage.update.kind}" for stage in trial.design.stages)
    parts += ["", f"Learning rate, with its multiplier of the update's default: {rates}."]
    if named.recommendation.number is not None:
        parts += ["", " ".join(named.recommendation.words)]
    return "\n".join([*parts, *_answers(c, trial)]) + "\n"


def _means(seeds: Sequence[TrialRecord]) -> tuple[Metrics | None, Metrics | None]:
    """Return the mean metrics on the validation and on the test rows."""
    found = ([one.metrics for one in seeds], [one.test_metrics for one in seeds])
    measured = ([one for one in split if one is not None] for split in found)
    validation, test = (mean_metrics(split) if split else None for split in measured)
    return validation, test


def _answers(c: Connection, trial: TrialRecord) -> list[str]:
    samples = views.samples(c, trial)[:ANSWERS]
    if not samples:
        return []
    parts = ["", "Greedy answers to held-out prompts, truncated:"]
    for sample in samples:
        parts += [
            "",
            *_quoted(f"Prompt: {sample.prompt}"),
            ">",
            *_quoted(f"Untuned base: {sample.base_answer if sample.base_answer is not None else '–'}"),
            ">",
            *_quoted(f"This model: {sample.answer}"),
        ]
    return parts


def _quoted(text: str) -> list[str]:
    """Return any text as one quoted line of Markdown that shows it literally."""
    return [f"> {plain(text)}"]
