"""What an experiment tracker has to implement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from luthier.metrics import values_at
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import Point


class Tracker(Protocol):
    name: str

    def known(self, job: JobRecord) -> set[str]:
        """Return the ids of the job's trials that the tracker has completely."""
        ...

    def log_trial(self, job: JobRecord, trial: TrialRecord, points: Sequence[Point]) -> None:
        """Log a trial that has ended. An incomplete earlier attempt is replaced."""
        ...

    def conclude(self, job: JobRecord) -> None:
        """Close the job: it has ended and all its trials are logged."""
        ...


def curve(point: Point, stages: int) -> str:
    """Return the name of a curve, with its stage where there are several."""
    return point.name if stages < 2 else f"stage{point.stage}/{point.name}"


def scores(trial: TrialRecord) -> dict[str, float]:
    """Return the final metrics by name, for the validation rows and the test rows."""
    found: dict[str, float] = {"device_seconds": trial.device_seconds, "trained_tokens": float(trial.trained_tokens)}
    for split, metrics in (("validation", trial.metrics), ("test", trial.test_metrics)):
        if metrics is not None:
            measured = values_at("trackers", metrics) | {"tokens": float(metrics.tokens), "rows": float(metrics.rows)}
            found |= {f"{split}/{name}": value for name, value in measured.items()}
    return found


def settings(trial: TrialRecord) -> dict[str, str | int | float | bool]:
    """Return each field of the design by its path, e.g. `stages.0.optimiser.batch_size`."""
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
