"""A job's rows as a search of a dozen designs leaves them: halving, confirmations, a failure and a refusal.

The lengths of the trainings are fixed, as under a cosine schedule; `ending_by_themselves` is the same search without.
"""

import math
import random
from collections.abc import Sequence

import numpy as np

from luthier.algorithms import Clm, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.task import DataKind, JudgeSpec, Search, Task
from luthier.trial import JobState, Metrics, RowScores, TrialState
from luthier.updates import Dora, Full, Lora, RsLora, Update
from search.policy.history import Past
from search.report.inputs import Case, Tried
from search.space.learning_rate import default_learning_rate, significant
from tests.unit.search_samples import SMOL, scored, space_of

ROWS = 60
TOKENS, BYTES = 30, 120.0
_DRAW = np.random.default_rng(1)
HARD = _DRAW.gamma(6.0, 0.12, ROWS)  # nats per byte of each test row, before any training


def design(
    update: Update,
    *,
    recipe: str = "sft",
    rate: float = 1.0,
    batch: int = 8,
    epochs: float = 1.0,
    layers: int | None = None,
    base: str = "smol",
) -> Design:
    algorithm = Sft() if recipe == "sft" else Clm()
    usual = default_learning_rate(recipe, update.kind, SMOL.facts.hidden_size)
    optimiser = Optimiser(learning_rate=significant(usual * rate), batch_size=batch, epochs=epochs)
    stage = Stage(algorithm=algorithm, update=update, optimiser=optimiser)
    return Design(architecture=Architecture(base=base, layers=layers), stages=(stage,))


UNTUNED = Design(architecture=Architecture(base="smol"))
DEFAULT = design(Lora(rank=16))


def metrics(bits: float, reward: float | None = None, rows: int = ROWS) -> Metrics:
    return Metrics(
        perplexity=2 ** (bits * BYTES / TOKENS),
        bits_per_byte=bits,
        reward=reward,
        reward_name=None if reward is None else "text_similarity",
        tokens=rows * TOKENS,
        rows=rows,
    )


def row_scores(bits: float, seed: int, general: float = 1.1, rows: int = ROWS, noise: float = 0.04) -> RowScores:
    """Of a design that scores about so many bits per byte; the same rows are hard for every design."""
    draw = np.random.default_rng(seed)
    rate = HARD[:rows] / HARD[:rows].mean() * bits * math.log(2) + draw.normal(0.0, noise, rows) * bits
    nll = tuple(float(value) for value in np.maximum(rate, 0.0) * BYTES)
    return RowScores(nll=nll, tokens=(TOKENS,) * rows, bytes=(BYTES,) * rows, general_bits_per_byte=general)


def complete(
    number: int,
    design: Design,
    bits: float,
    *,
    seconds: float = 90.0,
    origin: str = "proposed",
    confirms: int | None = None,
    measured: Sequence[float] = (),
    test: float | None = None,
    general: float = 1.1,
    rows: int = ROWS,
) -> Tried:
    """`test` is what it scores on the test rows; None where these were not scored."""
    scores = None if test is None else row_scores(test, 100 + number, general, rows)
    found = None
    if scores is not None:
        found = metrics(sum(scores.nll) / math.log(2) / sum(scores.bytes), rows=rows)
    past = Past(
        number=number,
        design=design,
        state=TrialState.COMPLETE,
        value=bits,
        device_seconds=seconds,
        measured=scored(*measured),
        confirms=confirms,
    )
    return Tried(
        past=past,
        id=f"trial-{number:02}",
        seed=number if confirms else 7,
        origin=origin,
        metrics=metrics(bits),
        test_metrics=found,
        scores=scores,
    )


def stopped(
    number: int, design: Design, *measured: float, state: TrialState = TrialState.PRUNED, origin: str = "proposed"
) -> Tried:
    past = Past(
        number=number,
        design=design,
        state=state,
        device_seconds=12.0 * 3 ** (len(measured) - 1),
        goal=len(measured) - 1,
        measured=scored(*measured),
    )
    return Tried(past=past, id=f"trial-{number:02}", seed=7, origin=origin)


def broken(number: int, design: Design, state: TrialState, error: str, seconds: float = 5.0) -> Tried:
    past = Past(number=number, design=design, state=state, device_seconds=seconds)
    return Tried(past=past, id=f"trial-{number:02}", seed=7, origin="proposed", error=error)


def untuned(test: float | None = 0.98, bits: float = 1.0, rows: int = ROWS) -> Tried:
    return complete(0, UNTUNED, bits, seconds=4.0, origin="baseline", test=test, general=1.05, rows=rows)


def default(test: float | None = 0.80, bits: float = 0.82, rows: int = ROWS) -> Tried:
    return complete(1, DEFAULT, bits, origin="baseline", measured=(0.93, 0.86), test=test, rows=rows)


def searched() -> tuple[Tried, ...]:
    """Fourteen designs; the winner (trial 5) is full fine-tuning at twice its usual rate."""
    best = design(Full(), rate=18.4, epochs=2.0)
    second = design(RsLora(rank=64), rate=2.0)
    return (
        untuned(),
        default(),
        complete(2, design(Full()), 0.76, origin="prior", measured=(0.9, 0.8), test=0.75, seconds=120),
        stopped(3, design(Lora(rank=16), recipe="clm"), 0.99, origin="prior"),
        stopped(4, design(Lora(rank=16), layers=26), 1.21, origin="prior"),
        complete(5, best, 0.70, measured=(0.88, 0.76), test=0.69, seconds=240, general=1.32),
        complete(6, second, 0.71, measured=(0.87, 0.77), test=0.70, seconds=130),
        stopped(7, design(Dora(rank=8)), 0.91, 0.84),
        stopped(8, design(Lora(rank=4), batch=16), 0.95),
        broken(9, design(Full(), rate=5.0), TrialState.FAILED, "the loss of stage 1 is not a number after step 12"),
        broken(
            10,
            design(Full(), batch=32),
            TrialState.INFEASIBLE,
            "it needs about 9.1 GiB, and the largest device has 8.0 GiB",
            seconds=0.0,
        ),
        stopped(11, design(Lora(rank=8), rate=0.3), 0.97),
        stopped(12, design(RsLora(rank=16), layers=22), 1.4),
        stopped(13, design(Dora(rank=32), rate=1.4), 0.9, 0.81),
        *[
            complete(14 + 2 * i + j, one, bits + 0.004 * (j + 1), origin="confirmation", confirms=number, test=test)
            for i, (number, one, bits, test) in enumerate(
                [
                    (5, best, 0.70, 0.69),
                    (6, second, 0.71, 0.70),
                    (2, design(Full()), 0.76, 0.75),
                    (1, DEFAULT, 0.82, 0.8),
                ]
            )
            for j in range(2)
        ],
    )


def case(tried: Sequence[Tried] | None = None, **changes: object) -> Case:
    found = searched() if tried is None else tuple(tried)
    judge = JudgeSpec(kind=DataKind.PAIRS, validation="v", test="t", objective="perplexity")
    made = Case(
        job="ftjob-7c91d4e2a1",
        state=JobState.SUCCEEDED,
        fine_tuned_model="ft:smol:support:7c91d4e2",
        created_at=1_774_746_000,
        finished_at=1_774_749_600,
        task=Task(),
        judge=judge,
        search=Search(trials=14),
        file="questions.jsonl",
        rows=(480, 60, 60),
        tried=found,
        facts={"smol": SMOL.facts},
        space=space_of(models=(SMOL,), schedule="cosine"),
        ended="all 14 trials are done",
        curve=tuple(2.0 / (1 + step / 40) + 0.01 * random.Random(step).random() for step in range(120)),
    )
    return made.model_copy(update=changes)


def self_ending(design: Design) -> Design:
    stages = [
        stage.model_copy(update={"optimiser": stage.optimiser.model_copy(update={"schedule": "constant"})})
        for stage in design.stages
    ]
    return design.model_copy(update={"stages": tuple(stages)})


def ending_by_themselves() -> Case:
    """The same search, where trainings end at their best moment."""
    tried = [
        one.model_copy(update={"past": one.past.model_copy(update={"design": self_ending(one.past.design)})})
        for one in searched()
    ]
    return case(tried, space=space_of(models=(SMOL,)))
