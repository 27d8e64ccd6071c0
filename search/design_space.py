"""The design space as a page to read: `python -m search.design_space` prints docs/design-space.md from the table.

What this is not: a description of the space. Every sentence of it stands in `search.rules`, every figure in the record
of `search.evidence`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from luthier.task import DataKind
from search.evidence import Evidence, recorded
from search.legality import programs
from search.rules import ALGORITHMS, EDITS, UPDATES, Phase

_INTRODUCTION: Final = """\
# The design space

<!-- printed by `python -m search.design_space` from search/rules.py; a test holds this page against it -->

A design is one base model, edits of its architecture if any, and one to three stages, each with a learning algorithm
and a weight update. Which of them go together depends on the data and the model, by the table below. A
request that asks for something else is refused with the reason before anything is queued."""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_INTRODUCTION, *_data(), *_programs(), *_updates(), *_edits(), *_evidence()]
    return "\n\n".join(parts) + "\n"


def _data() -> Iterator[str]:
    yield "## Learning algorithms and data"
    yield _table(
        ("algorithm", "stage that", "model", *(f"{kind}" for kind in DataKind)),
        [
            (f"`{rule.algorithm}`", rule.phase.words, rule.family, *(rule.fits.get(kind, "–") for kind in DataKind))
            for rule in ALGORITHMS
        ],
    )
    yield "Why not, where a field is empty:"
    reasons: dict[str, list[str]] = {}
    for rule in ALGORITHMS:
        for kind, reason in rule.refused.items():
            reasons.setdefault(f"{kind}: {reason}", []).append(f"`{rule.algorithm}`")
    yield "\n".join(f"- {', '.join(algorithms)} and {reason}" for reason, algorithms in reasons.items())


def _programs() -> Iterator[str]:
    yield "## Programs"
    order = ", then ".join(phase.words for phase in Phase)
    yield f"A program is a sequence of stages that, in this order, {order}. Each of these comes once at most."
    never = [
        f"- `{rule.algorithm}` does not follow `{earlier}`: {reason}"
        for rule in ALGORITHMS
        for earlier, reason in rule.not_after.items()
    ]
    yield "\n".join(never)
    yield "These are searched where none is pinned, the usual one first; `search.pin.algorithm` takes any legal one."
    yield _table(("data", "programs", "where the task has a reward, also", "encoders"), list(map(_searched, DataKind)))


def _searched(kind: DataKind) -> tuple[str, ...]:
    plain = programs(kind)
    rewarded = [name for name in programs(kind, rewarded=True) if name not in plain]
    return kind, *(", ".join(f"`{name}`" for name in names) for names in (plain, rewarded, programs(kind, "encoder")))


def _updates() -> Iterator[str]:
    yield "## Weight updates"
    always = ", ".join(f"`{rule.update}`" for rule in UPDATES if not (rule.otherwise or rule.four_bit))
    yield f"With every model: {always}. Under a condition:"
    conditions = [f"- `{rule.update}`: refused where {_of(rule.otherwise)}" for rule in UPDATES if rule.otherwise]
    conditions += [
        f"- `{rule.update}`: searched where all live workers have CUDA and the package bitsandbytes, refused elsewhere"
        for rule in UPDATES
        if rule.four_bit
    ]
    yield "\n".join(conditions)
    yield "Not for every algorithm:"
    reasons: dict[str, list[str]] = {}
    for rule in UPDATES:
        for name, reason in rule.refused.items():
            reasons.setdefault(f"`{rule.update}`: {reason}", []).append(f"`{name}`")
    yield "\n".join(f"- {', '.join(names)} and {reason}" for reason, names in reasons.items())
    unmerged = ", ".join(f"`{rule.update}`" for rule in UPDATES if not rule.mergeable)
    yield (
        f"What {unmerged} learn cannot be folded into the weights: all stages have the same one of them, the "
        "architecture is the base model's, and the adapter is all that is exported."
    )


def _edits() -> Iterator[str]:
    yield "## Edits of the architecture"
    yield _table(
        ("edit", "what it does", "refused where"),
        [(f"`{rule.edit}`", rule.does, _of(rule.otherwise)) for rule in EDITS],
    )


def _evidence() -> Iterator[str]:
    yield "## Evidence"
    yield (
        "Every cell (algorithm × update) is trained on a tiny real model before a version is made, and is offered only "
        "if the judge's score of held-out rows got better, exactly the update's own parameters moved, the saved model "
        "scores the same when plain libraries load it, and a training that was broken off and resumed ended bit for "
        "bit where an unbroken one ends. The score before → after, as `luthier cells` shows it:"
    )
    found = recorded()
    names = list(dict.fromkeys(cell.program for cell in found))
    cells = {(cell.program, cell.update): cell for cell in found if not cell.edit}
    yield _table(
        ("", *(f"{name}<br>{_metric(name, found)}" for name in names)),
        [(f"`{rule.update}`", *(_figures(cells.get((name, rule.update))) for name in names)) for rule in UPDATES],
    )

    yield "And with every edit, by `sft` of all weights:"
    edited = [cell for cell in found if cell.edit]
    yield _table(("edit", "perplexity"), [(cell.edit, _figures(cell)) for cell in edited])


def _figures(cell: Evidence | None) -> str:
    return "–" if cell is None else f"{cell.untuned:.3g} → {cell.trained:.3g}"


def _metric(program: str, found: Sequence[Evidence]) -> str:
    return next(cell.metric for cell in found if cell.program == program).replace("_", " ")


def _of(reason: str) -> str:
    return reason.format(model="the model", architecture="its class")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
