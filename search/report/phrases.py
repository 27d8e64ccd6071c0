"""Sentences about a winner along the four axes. Every figure in them is read off the job's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luthier.design import Design, Frozen
from luthier.metrics import figure
from luthier.models.base_model import ModelFacts
from luthier.report import AxisReport, AxisWords
from luthier.task import DataKind
from search.format import about, count, count_of, millions
from search.report.importance import AS_IT_IS
from search.report.inputs import Case, Tried
from search.report.pareto import parameters
from search.space.compatibility import EDITS

_KINDS = {
    DataKind.TEXT: "running text",
    DataKind.PAIRS: "prompts with completions",
    DataKind.CHAT: "conversations",
    DataKind.PREFERENCE: "prompts with a chosen and a rejected answer",
    DataKind.PROMPTS: "prompts without answers",
    DataKind.UNPAIRED: "prompts with completions, each labelled desirable or not",
}


def task(case: Case) -> tuple[str, ...]:
    train, validation, test = case.rows
    environment = case.task.environment
    made = "" if environment is None else f", made by the environment {environment.name}"
    return (
        f"The rows are {_KINDS[case.judge.kind]}{made}.",
        f"{count(train, 'row')} to train on, {validation} that chose between the designs, and {test} to test, which no "
        "proposal ever saw.",
    )


def winner(case: Case, won: Tried, worths: Sequence[AxisReport]) -> tuple[AxisWords, ...]:
    """The winner, axis by axis."""
    recipe, update = "learning algorithm", "weight update"
    return (
        AxisWords(axis="task and dataset", words=(*task(case), _judged(case))),
        AxisWords(
            axis=recipe,
            words=(
                *dict.fromkeys(
                    f"{stage.algorithm.kind}: {about(type(stage.algorithm))}" for stage in won.past.design.stages
                ),
                *_hyperparameters(won.past.design),
                *_others(case, won, lambda design: design.recipe, "recipe"),
                *_worth(case, worths, recipe),
            ),
        ),
        AxisWords(
            axis=update,
            words=(
                *dict.fromkeys(
                    f"{_update(stage.update)}: {about(type(stage.update))}" for stage in won.past.design.stages
                ),
                *_others(case, won, lambda design: design.stages[0].update.kind, "weight update"),
                *_worth(case, worths, update),
            ),
        ),
        AxisWords(
            axis="architecture",
            words=(
                *_architecture(case, won),
                *_others(case, won, lambda design: design.architecture.base, "base model"),
                *_others(case, won, lambda design: edits(design) or AS_IT_IS, "edit of the architecture"),
                *_worth(case, worths, "base model"),
                *_worth(case, worths, "edits"),
            ),
        ),
    )


def edits(design: Design) -> str:
    """What is changed of the base model; nothing said where nothing is."""
    architecture = design.architecture
    made = [f"{architecture.layers} layers"] if architecture.layers is not None else []
    made += [f"{architecture.kv_heads} KV heads"] if architecture.kv_heads is not None else []
    made += [f"window {architecture.window}"] if architecture.window is not None else []
    made += [f"context ×{architecture.rope_factor:g}"] if architecture.rope_factor is not None else []
    return ", ".join(made)


def _judged(case: Case) -> str:
    better = "less" if case.lower_is_better else "more"
    return f"Designs were compared by {case.unit} on the validation rows, where {better} is better."


def _hyperparameters(design: Design) -> tuple[str, ...]:
    first = design.stages[0].optimiser
    rates = " and ".join(dict.fromkeys(f"{stage.optimiser.learning_rate:.3g}" for stage in design.stages))
    return (f"Trained at learning rate {rates}, {first.batch_size} rows in a step, {count_of(first.epochs)}.",)


def _update(update: Frozen) -> str:
    rank = getattr(update, "rank", None)
    return f"{getattr(update, 'kind', '')}{'' if rank is None else f' of rank {rank}'}"


def _others(case: Case, won: Tried, value_of: Callable[[Design], str], noun: str) -> tuple[str, ...]:
    """How the winner's value did against the others that were tried."""
    tried = [one for one in case.designs if one.past.design.stages]
    mine = value_of(won.past.design)
    values = list(dict.fromkeys(value_of(one.past.design) for one in tried))
    if len(values) < 2:
        return ()
    sharing = sum(value_of(one.past.design) == mine for one in tried)
    which = "left the model as it is" if mine == AS_IT_IS else f"had this {noun}"
    said = f"{sharing} of {count(len(tried), 'trained design')} {which}"
    others = [one for one in case.ranked if value_of(one.past.design) != mine]
    if not others:
        rest = ", ".join(value for value in values if value != mine)
        return (f"{said}; none of the others ({rest}) was trained to its end.",)
    best = others[0]
    return (
        f"{said}. The best of them (trial {won.number}) has {figure(case.value(won))} {case.unit}; the best of the "
        f"others (trial {best.number}, {value_of(best.past.design)}) {figure(case.value(best))}.",
    )


def _worth(case: Case, worths: Sequence[AxisReport], axis: str) -> tuple[str, ...]:
    worth = next((one for one in worths if one.axis == axis), None)
    if worth is None or worth.values < 2:
        return ()
    said: list[str] = []
    if worth.share is not None:
        weak = ", too few of each to make much of it" if worth.weak else ""
        said.append(f"{worth.share:.0%} of the variance of ranks goes with it ({count(worth.trials, 'design')}{weak}).")
    if worth.worth is not None and worth.default is not None and worth.worth > 0:
        kept = "the model as it is" if worth.default == AS_IT_IS else worth.default
        said.append(f"Had only {kept} been tried, the best would be {figure(worth.worth)} {case.unit} worse.")
    return tuple(said)


def _architecture(case: Case, won: Tried) -> tuple[str, ...]:
    architecture = won.past.design.architecture
    changed = edits(won.past.design)
    how = f"with {changed}" if changed else "as it is"
    facts = case.facts.get(architecture.base)
    if facts is None:
        return (f"{architecture.base} {how}; it is not registered any more, so its size is not known.",)
    size = parameters(won.past.design, facts)
    instead = f" instead of {millions(facts.parameters)}" if changed else ""
    return (f"{architecture.base} {how}: {millions(size)} parameters in use{instead}.",)


def explained(design: Design, facts: ModelFacts | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """A design by itself, axis by axis. `facts` of its base model, where it is still registered."""
    architecture, changed = design.architecture, edits(design)
    how = f"{architecture.base} {f'with {changed}' if changed else 'as it is'}"
    if facts is None:
        size = "it is not registered any more, so its size is not known"
    elif not design.stages:
        size = f"{millions(facts.parameters)} parameters"
    else:
        size = f"{millions(parameters(design, facts))} parameters in use"
    made = ("architecture", (f"{how}: {size}.", *(f"It {_edit_words(edit)}." for edit in _edits_made(design))))
    if not design.stages:
        return (("learning algorithm", ("Untuned: the base model as it is, against which all others count.",)), made)
    stages = design.stages
    return (
        (
            "learning algorithm",
            (
                *dict.fromkeys(f"{stage.algorithm.kind}: {about(type(stage.algorithm))}" for stage in stages),
                *(settings for stage in stages if (settings := _settings(stage.algorithm))),
                *_hyperparameters(design),
            ),
        ),
        (
            "weight update",
            tuple(dict.fromkeys(f"{_update(stage.update)}: {about(type(stage.update))}" for stage in stages)),
        ),
        made,
    )


def _settings(algorithm: Frozen) -> str:
    """An algorithm's own numbers, where it has any."""
    values = [f"{name.replace('_', ' ')} {value:g}" for name, value in algorithm if isinstance(value, int | float)]
    return f"{getattr(algorithm, 'kind', '')}: {', '.join(values)}." if values else ""


def _edits_made(design: Design) -> list[str]:
    return [rule.edit for rule in EDITS if getattr(design.architecture, rule.edit) is not None]


def _edit_words(edit: str) -> str:
    return next(rule.does for rule in EDITS if rule.edit == edit)
