"""What a tool that is told of trials can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from luthier.metrics import values_at
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import Point


class Tracker(Protocol):
    name: str

    def known(self, job: JobRecord) -> set[str]:
        """Ids of the job's trials that it has, whole."""
        ...

    def keep(self, job: JobRecord, trial: TrialRecord, points: Sequence[Point]) -> None:
        """Take in a trial that has ended. One that was broken off before is taken in anew."""
        ...

    def conclude(self, job: JobRecord) -> None:
        """The job has ended and all its trials are known."""
        ...


def curve(point: Point, stages: int) -> str:
    """The name of a curve; a stage is named where there are several."""
    return point.name if stages < 2 else f"stage{point.stage}/{point.name}"


def scores(trial: TrialRecord) -> dict[str, float]:
    """The judge's numbers by name, of the validation rows and of the test rows."""
    found: dict[str, float] = {"device_seconds": trial.device_seconds, "trained_tokens": float(trial.trained_tokens)}
    for split, metrics in (("validation", trial.metrics), ("test", trial.test_metrics)):
        if metrics is not None:
            measured = values_at("trackers", metrics) | {"tokens": float(metrics.tokens), "rows": float(metrics.rows)}
            found |= {f"{split}/{name}": value for name, value in measured.items()}
    return found


def settings(trial: TrialRecord) -> dict[str, str | int | float | bool]:
    """Each field of the design by its path, e.g. `stages.0.optimiser.batch_size`."""
    return {
        "design": trial.design.summary(),
        "seed": trial.seed,
        **dict(_leaves("", trial.design.model_dump(mode="json"))),
    }


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str | int | float | bool]]:
    match value:
        case dict():
            for name, part in value.items():
                yield from _leaves(f"{path}.{name}" if path else name, part)
        case list():
            for position, part in enumerate(value):
                yield from _leaves(f"{path}.{position}", part)
        case None:
            return
        case _:
            yield path, value
