"""Promotion of a schedule's winner: it takes over the alias if it beats the current model (the champion) significantly.

Both are scored on the test rows of the new job, which its search has not seen. The champion comes from an earlier job.
It enters the new job when the search is over, as a trial that is only scored (number -1, unknown to the search).

A row's content decides whether it is a test row, so old test rows stay test rows when data is added, and the champion
was not trained on them. In small files, of which a larger share is held out, it may have been, which favours the
champion. While an alias has no model yet, the untuned base model is the champion. It also is where the current model is
that of a job that recommended its base; trial 0 of the new job then has its scores.
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
from search.format import count
from search.report import bootstrap
from search.report.recommend import RELATION
from service.context import Context
from service.jobs import events


def champion_ready(ctx: Context, job: JobRecord, now: datetime) -> bool:
    """Return whether the job may conclude: its champion is scored, or there is none that can be. Else enter it."""
    if job.schedule_id is None:
        return True
    with ctx.database.begin() as c:
        alias = _alias(c, job)
        champion = None if alias is None else aliases.current(c, alias)
        if champion is None or champion.job_id == job.id or _untuned(c, champion):
            return True
        if obstacle(c, job, champion.trial_id) is not None:
            return True
        entered = trials.champion(c, job.id)
        if entered is None and not jobs.lock(c, job.id).state.terminal:
            trials.enter_champion(c, job.id, trials.get(c, champion.trial_id), now)
            events.challenged(c, job.id, champion.model, now)
        return entered is not None and entered.state.terminal


def decide(c: Connection, job: JobRecord, winner: TrialRecord, base: TrialRecord | None, now: datetime) -> None:
    """Promote the model of a job that has just succeeded, or leave the alias as it is. Store and log the decision.

    `winner`: the trial that the job's model stands for.
    """
    alias = _alias(c, job)
    if alias is None:
        return
    champion = aliases.current(c, alias)
    if champion is not None and champion.job_id == job.id:
        return  # of a job that was extended: see `follow`
    contest = _contest(c, job, winner, base, champion)
    if contest.promoted:
        aliases.point(c, alias, job, "schedule", now, contest)
    schedules.note_contest(c, job.id, contest)
    events.contested(c, job.id, alias, contest, now)


def follow(c: Connection, job: JobRecord, now: datetime) -> None:
    """Point the aliases of an extended job's earlier model to its new one."""
    for record in aliases.list_(c):
        if record.job_id == job.id and record.trial_id != job.best_trial_id:
            aliases.point(c, record.name, job, record.origin, now, record.contest)


def weights(c: Connection, trial_id: str) -> Artifact | None:
    """Return a trial's merged model, or its adapter if there is none; None where no weights are kept."""
    kept = {artifact.kind: artifact for artifact in artifacts.of_trial(c, trial_id)}
    return kept.get("merged") or kept.get("adapter")


def obstacle(c: Connection, job: JobRecord, trial_id: str) -> str | None:
    """Return why this job's judge cannot score the weights of an earlier job's trial; None where it can."""
    base = trials.get(c, trial_id).design.architecture.base
    if weights(c, trial_id) is None:
        return "its weights are no longer kept"
    try:
        family = models.get(c, base).facts.family
    except NotFound:
        return f"its base model {base} is no longer registered"
    if family != job.judge.family:
        return f"scores of a {family} and of a {job.judge.family} cannot be compared"
    return None


def _untuned(c: Connection, champion: AliasRecord) -> bool:
    """Return whether the champion is an untuned base model, which an earlier job recommended."""
    return not trials.get(c, champion.trial_id).design.stages


def _alias(c: Connection, job: JobRecord) -> str | None:
    if job.schedule_id is None:
        return None
    try:
        return schedules.get(c, job.schedule_id).alias
    except NotFound:  # the schedule was deleted; its jobs stay
        return None


def _contest(
    c: Connection, job: JobRecord, winner: TrialRecord, base: TrialRecord | None, champion: AliasRecord | None
) -> Contest:
    scores = measurements.scores_of_job(c, job.id)
    if champion is None:
        name = f"the untuned base {winner.design.architecture.base}"
        base_scores = None if base is None else scores.get(base.id)
        return _compare(job, name, scores.get(winner.id), base_scores, "the untuned base was not scored on test rows")
    if _untuned(c, champion):
        same = base is not None and base.design == trials.get(c, champion.trial_id).design
        base_scores = scores.get(base.id) if base is not None and same else None
        unknown = "it is the untuned base of an earlier job, which was not scored here"
        return _compare(job, champion.model, scores.get(winner.id), base_scores, unknown)
    entered = trials.champion(c, job.id)
    missing = obstacle(c, job, champion.trial_id)
    if missing is None and (entered is None or entered.weights_of != champion.trial_id):
        missing = "the alias was changed while the job ended"
    elif missing is None and entered is not None and entered.state is not TrialState.COMPLETE:
        missing = f"scoring it ended as {entered.state.value}: {entered.error or 'no reason was given'}"
    champion_scores = None if entered is None or missing is not None else scores.get(entered.id)
    return _compare(
        job, champion.model, scores.get(winner.id), champion_scores, missing or "it has no scores on the test rows"
    )


def _compare(
    job: JobRecord, champion: str, winner: RowScores | None, against: RowScores | None, missing: str
) -> Contest:
    """`missing`: why the champion has no scores, if it has none."""
    objective = job.judge.objective
    if winner is None or against is None or not bootstrap.comparable([winner], [against], objective):
        why = missing if against is None else "the scores are not of the same test rows"
        return Contest(
            champion=champion, promoted=False, why=f"no comparison with {champion}: {why}", objective=objective
        )
    found = bootstrap.compare([winner], [against], objective)
    difference = found.objective
    interval = f"95% interval {signed(difference.low)} to {signed(difference.high)}"
    numbers = f"{signed(difference.difference)} {deciding(objective).label}, {interval}"
    few = f", fewer than the {bootstrap.LEAST_ROWS} that the word significant needs"
    return Contest(
        champion=champion,
        promoted=found.verdict == "better beyond the noise",
        why=f"{RELATION[found.verdict]} {champion}: {numbers}, on {count(found.rows, 'test row')}"
        + (few if found.rows < bootstrap.LEAST_ROWS else ""),
        objective=objective,
        difference=difference.difference,
        low=difference.low,
        high=difference.high,
        rows=found.rows,
    )
