"""The smallest difference that the held-out rows can tell: measured in a report, estimated when a job is created.

Measured: half the width of the 95 % interval of the difference between two designs on the test rows. The interval is
over rows and seeds.

Estimated: a paired comparison on R rows tells differences of 1.96 · SPREAD / √R. SPREAD is the standard deviation, over
rows, of the difference between two trained designs. For likelihood it is relative to the score: the median is 0.065
over pairs of designs of the tests' real jobs (0.02 to 0.10). A reward is compared as right or wrong, where two designs
that disagree on a quarter of the rows have 0.5.

USUAL_GAIN is what tuning brought over the plain-LoRA default on the recorded tables (`bench/atlas`): the smaller gain
of the two likelihood tables (instruction 2.4 %, domain 14 % of the default's score), and of the two reward tables
(preference 0.28, verifiable 0.68). A test computes it from the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from luthier.report import ComparisonReport
from luthier.task import JudgeSpec, Objective

Z: Final = 1.96
SPREAD: Final[Mapping[Objective, float]] = {"perplexity": 0.065, "reward": 0.5}
USUAL_GAIN: Final[Mapping[Objective, float]] = {"perplexity": 0.024, "reward": 0.28}


def expected(objective: Objective, rows: int) -> float:
    """Return the difference that about so many rows can tell: a share of the score for likelihood, else of the reward.

    Seeds make it larger; they are not known before the search.
    """
    return Z * SPREAD[objective] / math.sqrt(max(1, rows))


def scored_rows(judge: JudgeSpec, rows: int) -> int:
    """Return how many of so many held-out rows decide the score: only some are answered and graded."""
    graded = judge.objective == "reward" and (judge.grader is not None or judge.environment is not None)
    return min(rows, judge.max_rows, judge.max_generations if graded else rows)


def warning(objective: Objective, validation: int, test: int, *, splits: int = 1) -> str | None:
    """Return why these rows are too few to choose by; None if they can tell what tuning usually brings.

    `validation`, `test`: rows that decide the score. `splits`: on how many splits of the rows finalists are compared.
    """
    rows = min(validation, test)
    difference, gain = expected(objective, rows), USUAL_GAIN[objective]
    if difference <= gain:
        return None
    share = objective == "perplexity"
    told, usual = (f"{100 * one:.1f} %" if share else f"{one:.2f}" for one in (difference, gain))
    of = "of the score" if share else "of reward"
    needed = math.ceil((Z * SPREAD[objective] / gain) ** 2)
    finalists = f" (finalists on those of {splits} splits)" if splits > 1 else ""
    return (
        f"Few rows to choose by: designs are ranked on {validation} validation rows{finalists} and compared on {test} "
        f"test rows, which can tell differences of about {told} {of}. Tuning usually brings {usual} or more over the "
        f"default. About {needed} rows in each would tell that."
    )


def measured(compared: Sequence[ComparisonReport]) -> tuple[float, ComparisonReport] | None:
    """Return the smallest difference that the test rows and seeds can distinguish, and the comparison that shows it.

    The comparison is the first of: with the runner-up, with the default, with the base.
    """
    order = ("runner-up", "plain-LoRA default", "untuned base")
    found = sorted(compared, key=lambda one: order.index(one.against))
    return None if not found else ((found[0].high - found[0].low) / 2, found[0])
