"""Answers to held-out prompts, of the base model and of trials whose weights were kept."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from luthier.store import tables
from luthier.store.database import insert_into
from luthier.trial import Sample

_samples = tables.samples


def put(c: Connection, trial_id: str, found: Sequence[Sample]) -> None:
    """Keep a trial's samples, instead of those that it had."""
    row = insert_into(c, _samples).values(trial_id=trial_id, samples=tuple(found))
    c.execute(row.on_conflict_do_update(index_elements=[_samples.c.trial_id], set_={"samples": row.excluded.samples}))


def of_trial(c: Connection, trial_id: str) -> tuple[Sample, ...]:
    """None there where the trial has made none."""
    found: tuple[Sample, ...] | None = c.scalar(select(_samples.c.samples).where(_samples.c.trial_id == trial_id))
    return found or ()
