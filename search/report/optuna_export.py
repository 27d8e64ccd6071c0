"""Export a job as an Optuna study in an SQLite file, for Optuna and optuna-dashboard.

The file is an export only: no search reads it. The axes are Optuna parameters with the distributions of the job's
search space. A trial outside that space, such as the untuned base, has no parameters. Values are bits per byte, or the
reward. Intermediate values are the scores at rungs, at the steps 1, 3, 9 and so on. The final score follows at the next
step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State
from pydantic import AwareDatetime, Field

from luthier.errors import IllegalDesign
from luthier.metrics import deciding
from luthier.task import Objective
from luthier.trial import RUNG_FACTOR, TrialState
from luthier.values import Frozen
from search.policy.history import Past
from search.policy.widen import widened
from search.space.samplers import Value
from search.space.space import Space

STATES: Final[Mapping[TrialState, State]] = {
    TrialState.WAITING: State.WAITING,
    TrialState.LEASED: State.RUNNING,
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAILED: State.FAIL,
    TrialState.INFEASIBLE: State.FAIL,
    TrialState.CANCELLED: State.FAIL,
}


class Told(Frozen):
    """One trial: its history as the search sees it, and what only the study needs."""

    past: Past
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    attributes: dict[str, Any] = Field(description="user attributes; those that are None are left out")


def write_study(
    path: Path,
    name: str,
    objective: Objective,
    space: Space | None,
    trials: Sequence[Told],
    attributes: Mapping[str, Any],
) -> None:
    """Write the study to a new file at `path`. Without a `space` no trial has parameters."""
    if space is not None:
        space = widened(space, [told.past for told in trials])
    storage = RDBStorage(f"sqlite:///{path}")
    try:
        direction = StudyDirection.MINIMIZE if deciding(objective).lower_is_better else StudyDirection.MAXIMIZE
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        for key, value in attributes.items():
            study.set_user_attr(key, value)
        study.add_trials([_frozen(told, objective, space) for told in trials])
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _frozen(told: Told, objective: Objective, space: Space | None) -> FrozenTrial:
    past = told.past
    state = State.RUNNING if past.paused else STATES[past.state]
    sign = float(deciding(objective).sign)
    params, distributions = _parameters(past, space)
    reached = {RUNG_FACTOR**rung: sign * value for rung, (value, _) in enumerate(past.measured)}
    if past.value is not None:
        reached[RUNG_FACTOR ** len(reached)] = sign * past.value
    started = told.started_at or told.finished_at
    return FrozenTrial(
        number=past.number,
        trial_id=past.number,
        state=state,
        value=None if past.value is None else sign * past.value,
        datetime_start=_naive(started),
        datetime_complete=_naive(told.finished_at) if state.is_finished() else None,
        params=params,
        distributions=distributions,
        user_attrs={name: value for name, value in told.attributes.items() if value is not None},
        system_attrs={},
        intermediate_values=reached,
    )


def _parameters(past: Past, space: Space | None) -> tuple[dict[str, Value], dict[str, BaseDistribution]]:
    try:
        if space is not None:
            return space.encode(past.design), space.distributions(past.design)
    except IllegalDesign:
        pass  # a baseline or a manual design outside the space
    return {}, {}


def _naive(moment: datetime | None) -> datetime | None:
    """The time in UTC, without a time zone: Optuna stores none."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)
