"""What workers report in the store's tests, and all rows that a report can change."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, select, update

from luthier.store import leases, tables
from luthier.trial import Metrics, Point, RowScores, TrialState, Usage
from luthier.worker_protocol import Artifact, CheckpointSaved, Claim, Finished, Judged, RungReached
from tests.integration.store_samples import (
    METRICS,
    NOW,
    after,
    digest,
)

OUTCOMES = ["complete", "failed", "infeasible", "cancelled", "waiting"]
TERMINAL = [state for state in TrialState if state.terminal]
ADAPTER = Artifact(kind="adapter", files={"adapter_model.safetensors": digest("weights")}, bytes=9)
USAGE = Usage(
    peak_memory_bytes=2**40, train_seconds=8.5, train_tokens=2**40, steps=9, judge_seconds=0.1, judged_rows=32
)
SCORES = RowScores(nll=(1 / 3, 2.0), tokens=(3, 4), bytes=(9.5, 12.0), reward=(0.0, 1.0), general_bits_per_byte=1.5)
LOSS = Point(stage=0, step=5, name="train_loss", value=2.5, at=NOW)


def finished(claim: Claim, outcome: str = "complete", **fields: Any) -> Finished:
    fields = {"device_seconds": 12.5, "metrics": METRICS, "artifacts": (ADAPTER,), "points": (LOSS,)} | fields
    fields = {"usage": USAGE, "test_scores": SCORES} | fields
    return Finished(owner=claim.owner, fence=claim.fence, outcome=outcome, **fields)


def saved(claim: Claim, name: str) -> CheckpointSaved:
    blobs = (digest(f"{name} weights"), digest(f"{name} optimiser"))
    return CheckpointSaved(**dict(claim), manifest=digest(name), blobs=blobs, stage=0, step=7)


def verdict(claim: Claim) -> Judged:
    return Judged(**dict(claim), metrics=METRICS, device_seconds=8.0)


def scored(bits_per_byte: float) -> Metrics:
    return METRICS.model_copy(update={"bits_per_byte": bits_per_byte})


def reached(claim: Claim, rung: int, bits_per_byte: float = 2.0) -> RungReached:
    return RungReached(**dict(claim), rung=rung, share=0.25, stage=0, step=7, metrics=scored(bits_per_byte))


def end(outcome: str) -> Callable[[Connection, str, Claim], object]:
    return lambda c, trial_id, claim: leases.finish(c, trial_id, finished(claim, outcome), after(1))


def everything(c: Connection) -> list[tuple[Any, ...]]:
    """All rows that a report could have changed."""
    kept = (
        tables.trials,
        tables.rungs,
        tables.test_scores,
        tables.points,
        tables.artifacts,
        tables.artifact_files,
        tables.checkpoint_blobs,
    )
    return [tuple(row) for table in kept for row in c.execute(select(table).order_by(*table.primary_key))]


def force(c: Connection, trial_id: str, **values: Any) -> None:
    """Change a row directly, even if the transitions do not allow it."""
    c.execute(update(tables.trials).where(tables.trials.c.id == trial_id).values(values))
