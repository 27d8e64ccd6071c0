"""TensorBoard: a folder for each job, with a folder for each trial."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import Point
from service.integrations import tfevents
from service.integrations.tracker import curve, scores, settings


class TensorBoard:
    """Writes event files under `folder`; `tensorboard --logdir` shows them. A trial's folder is written atomically."""

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def known(self, job: JobRecord) -> set[str]:
        return {path.name.rpartition("_")[2] for path in (self._folder / job.id).glob("[0-9]*_*")}

    def log_trial(self, job: JobRecord, trial: TrialRecord, points: Sequence[Point]) -> None:
        whole = self._folder / job.id / f"{trial.number:04d}_{trial.id}"
        part = whole.with_name(f"part_{trial.id}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        begun, ended = trial.created_at.timestamp(), (trial.finished_at or trial.created_at).timestamp()
        stages = len(trial.design.stages)
        table = "\n".join(["| field | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in settings(trial).items())])
        with (part / f"events.out.tfevents.{int(begun)}.{trial.id}").open("wb") as file:
            file.write(tfevents.version(begun))
            file.write(tfevents.markdown("design", table, begun))
            for point in points:
                file.write(tfevents.scalar(curve(point, stages), point.value, point.step, point.at.timestamp()))
            for name, value in scores(trial).items():
                file.write(tfevents.scalar(name, value, 0, ended))
        if not whole.exists():
            part.rename(whole)
        shutil.rmtree(part, ignore_errors=True)

    def conclude(self, job: JobRecord) -> None:
        pass  # there is nothing to close
