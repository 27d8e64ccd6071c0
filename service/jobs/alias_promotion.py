"""Champions: a schedule's winner takes over the alias only where it beats, beyond the noise, what the alias stands for.

Both are scored on the same rows: the test rows of the new job, which its search has not seen. The champion's weights
were trained by an earlier job, so they enter the new one when its search is over, as a trial that is only judged
(number -1, which the search does not know of). Which rows are test rows follows from their content, so that new data
leaves the old test rows where they were, and the champion has trained on none; in files of few rows, where a split is
filled up, it may have, to its own advantage. While an alias stands for nothing, the untuned base model is the champion.
"""

from __future__ import annotations

from datetime import datetime

from luthier.errors import NotFound
from luthier.metrics import deciding, signed
from luthier.schedule import Contest
from luthier.store import Connection, aliases, artifacts, jobs, measurements, models, schedules, trials
from luthier.store.rows import AliasRecord, JobRecord, TrialRecord
from luthier.trial import RowScores, TrialState
from luthier.worker_protocol import Artifact
from search.report import bootstrap
from service.context import Context
from service.jobs import events


def scored(ctx: Context, job: JobRecord, now: datetime) -> bool:
    """Whether the champion has been scored on the job's rows, if there is one and it can be; else it is entered."""
    if job.schedule_id is None:
        return True
    with ctx.database.begin() as c:
        champion = _champion(c, job)
        if champion is None or unfit(c, job, champion.trial_id) is not None:
            return True
        entered = trials.champion(c, job.id)
        if entered is None and not jobs.lock(c, job.id).state.terminal:
            trials.enter_champion(c, job.id, trials.get(c, champion.trial_id), now)
            events.challenged(c, job.id, champion.model, now)
        return entered is not None and entered.state.terminal


def decide(c: Connection, job: JobRecord, winner: TrialRecord, base: TrialRecord | None, now: datetime) -> None:
    """Promote the winner of a job that has just succeeded, or leave the alias as it is; and tell why."""
    alias = _alias(c, job)
    if alias is None:
        return
    contest = _contest(c, job, winner, base, aliases.current(c, alias))
    if contest.promoted:
        aliases.point(c, alias, job, "schedule", now, contest)
    schedules.note_contest(c, job.id, contest)
    events.contested(c, job.id, alias, contest, now)


def weights(c: Connection, trial_id: str) -> Artifact | None:
    """Of a trial, as a whole model or, where there is none, as an adapter; None where nothing is kept."""
    kept = {artifact.kind: artifact for artifact in artifacts.of_trial(c, trial_id)}
    return kept.get("merged") or kept.get("adapter")


def unfit(c: Connection, job: JobRecord, trial_id: str) -> str | None:
    """Why the weights of an earlier job's trial cannot be scored by this job's judge; None where they can."""
    base = trials.get(c, trial_id).design.architecture.base
    if weights(c, trial_id) is None:
        return "its weights are no longer kept"
    try:
        family = models.get(c, base).facts.family
    except NotFound:
        return f"its base model {base} is no longer registered"
    if family != job.judge.family:
        return f"{family}s and {job.judge.family}s are not scored alike"
    return None


def _alias(c: Connection, job: JobRecord) -> str | None:
    if job.schedule_id is None:
        return None
    try:
        return schedules.get(c, job.schedule_id).alias
    except NotFound:  # it was deleted; its jobs stay
        return None


def _champion(c: Connection, job: JobRecord) -> AliasRecord | None:
    alias = _alias(c, job)
    return None if alias is None else aliases.current(c, alias)


def _contest(
    c: Connection, job: JobRecord, winner: TrialRecord, base: TrialRecord | None, champion: AliasRecord | None
) -> Contest:
    found = measurements.scores_of_job(c, job.id)
    if champion is None:
        name = f"the untuned base {winner.design.architecture.base}"
        against = None if base is None else found.get(base.id)
        return _compared(job, name, found.get(winner.id), against, "the untuned base was not scored on the test rows")
    entered = trials.champion(c, job.id)
    why = unfit(c, job, champion.trial_id)
    if why is None and (entered is None or entered.weights_of != champion.trial_id):
        why = "the alias has changed while the job ended"
    elif why is None and entered is not None and entered.state is not TrialState.COMPLETE:
        why = f"it was to be scored, and {entered.state.value}: {entered.error or 'no reason was given'}"
    against = None if entered is None or why is not None else found.get(entered.id)
    return _compared(job, champion.model, found.get(winner.id), against, why or "it has no scores on the test rows")


def _compared(
    job: JobRecord, champion: str, winner: RowScores | None, against: RowScores | None, otherwise: str
) -> Contest:
    """`otherwise`: why there is nothing to compare with, where that is so."""
    objective = job.judge.objective
    if winner is None or against is None or not bootstrap.comparable([winner], [against], objective):
        why = f"{champion} stays: {otherwise}" if against is None else f"{champion} stays: their scores do not match"
        return Contest(champion=champion, promoted=False, why=why, objective=objective)
    found = bootstrap.compare([winner], [against], objective)
    difference = found.objective
    interval = f"95% interval {signed(difference.low)} to {signed(difference.high)}"
    numbers = f"{signed(difference.difference)} {deciding(objective).label}, {interval}"
    promoted = found.verdict == "better beyond the noise"
    like = "from" if found.verdict == "not distinguishable" else "than"
    return Contest(
        champion=champion,
        promoted=promoted,
        why=f"{found.verdict} {like} {champion}: {numbers}, on {found.rows} test rows",
        objective=objective,
        difference=difference.difference,
        low=difference.low,
        high=difference.high,
        rows=found.rows,
    )
