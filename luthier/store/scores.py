"""What the judge found for each test row, of the trials that were scored on them."""

from __future__ import annotations

from sqlalchemy import Connection, select

from luthier.store import tables
from luthier.store.database import insert_into
from luthier.trial import RowScores

_scores = tables.test_scores


def add(c: Connection, trial_id: str, scores: RowScores) -> None:
    """Keep a trial's scores, instead of those that it had."""
    row = insert_into(c, _scores).values(trial_id=trial_id, scores=scores)
    c.execute(row.on_conflict_do_update(index_elements=[_scores.c.trial_id], set_={"scores": row.excluded.scores}))


def of_job(c: Connection, job_id: str) -> dict[str, RowScores]:
    """By trial."""
    query = (
        select(_scores)
        .join(tables.trials, tables.trials.c.id == _scores.c.trial_id)
        .where(tables.trials.c.job_id == job_id)
    )
    return {row["trial_id"]: row["scores"] for row in c.execute(query).mappings()}
