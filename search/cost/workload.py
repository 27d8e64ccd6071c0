"""The workload of a job's trials, independent of the design: rows, lengths, and the judge's limits."""

from __future__ import annotations

import math
from collections.abc import Mapping

from luthier.dataset import Profile
from luthier.models.base_model import ModelFacts
from luthier.task import DataKind, JudgeSpec
from search.methods.amounts import Workload


def workload(
    profile: Profile,
    judge: JudgeSpec,
    *,
    rows: int,
    validation: int,
    test: int,
    ratio: float = 1.0,
    teachers: Mapping[str, ModelFacts] | None = None,
) -> Workload:
    """Return the workload of a job with so many training, validation and test rows.

    `ratio` is the number of tokens trained on per token that the profile counts, as measured in finished trials.
    """
    count = max(1, profile.rows)
    answers = 2 if profile.kind is DataKind.PREFERENCE else 1
    limit = judge.window if profile.kind is DataKind.TEXT else judge.max_tokens
    prompt = ratio * (profile.tokens - profile.target_tokens) / count
    target = ratio * profile.target_tokens / (count * answers)
    if profile.kind is not DataKind.TEXT and prompt + target > limit:
        prompt, target = prompt * limit / (prompt + target), target * limit / (prompt + target)
    # The standard deviation follows from the 50th and 90th percentiles of a normal distribution.
    lengths = [profile.target_lengths, *([profile.prompt_lengths] if profile.prompt_lengths else [])]
    spread = math.sqrt(sum(((each.p90 - each.p50) / 1.2816) ** 2 for each in lengths))
    return Workload(
        kind=profile.kind,
        rows=max(1, rows),
        prompt=prompt,
        target=target,
        spread=spread * ratio,
        validation=validation,
        test=test,
        graded=judge.grader is not None or judge.environment is not None,
        objective=judge.objective,
        teachers=dict(teachers or {}),
        desirable=1.0 if profile.desirable is None else profile.desirable,
        window=judge.window,
        max_tokens=judge.max_tokens,
        max_new_tokens=judge.max_new_tokens,
        max_rows=judge.max_rows,
        max_generations=judge.max_generations,
        pseudo_positions=judge.pseudo_positions,
        pseudo_windows=judge.pseudo_windows,
    )
