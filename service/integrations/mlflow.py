"""MLflow: one experiment `luthier`, with a run for each job and a child run for each trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from luthier.errors import UserError
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState, Point, TrialState
from service.integrations.tracker import curve, scores, settings

T = TypeVar("T")

EXPERIMENT: Final = "luthier"
JOB, TRIAL = "luthier.job", "luthier.trial"  # tags of runs
_METRICS: Final = 1000  # limits of MLflow for one batch
_PARAMS: Final = 100
_LETTERS: Final = 500  # limit of a parameter's value


class Mlflow:
    """Logs to the tracking server at `url`, or any other tracking URI of MLflow."""

    name = "MLflow"

    def __init__(self, url: str) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise UserError("LUTHIER_MLFLOW_URL needs `pip install 'luthier[mlflow]'`", param="mlflow_url") from error
        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient(url)

    def known(self, job: JobRecord) -> set[str]:
        found = self._search(f"tags.`{JOB}` = '{job.id}' and attributes.status != 'RUNNING'")
        return {run.data.tags[TRIAL] for run in found if TRIAL in run.data.tags}

    def log_trial(self, job: JobRecord, trial: TrialRecord, points: Sequence[Point]) -> None:
        for incomplete in self._search(f"tags.`{TRIAL}` = '{trial.id}'"):
            self._client.delete_run(incomplete.info.run_id)
        started, ended = trial.started_at or trial.created_at, trial.finished_at or trial.created_at
        tags = {JOB: job.id, TRIAL: trial.id, "mlflow.parentRunId": self._job_run(job), "luthier.origin": trial.origin}
        tags |= {} if trial.error is None else {"luthier.error": trial.error}
        run = self._client.create_run(
            self._experiment(), _milliseconds(started), tags, run_name=f"{trial.number}: {trial.design.summary()}"
        ).info.run_id
        for params in _batches(list(settings(trial).items()), _PARAMS):
            self._client.log_batch(
                run, params=[self._entities.Param(name, str(value)[:_LETTERS]) for name, value in params]
            )
        stages = len(trial.design.stages)
        metrics = [(curve(one, stages), one.value, _milliseconds(one.at), one.step) for one in points]
        metrics += [(name, value, _milliseconds(ended), 0) for name, value in scores(trial).items()]
        for some in _batches(metrics, _METRICS):
            self._client.log_batch(run, metrics=[self._entities.Metric(*metric) for metric in some])
        status = "FINISHED" if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else "FAILED"
        self._client.set_terminated(run, status, _milliseconds(ended))

    def conclude(self, job: JobRecord) -> None:
        status = {JobState.SUCCEEDED: "FINISHED", JobState.CANCELLED: "KILLED"}.get(job.state, "FAILED")
        self._client.set_terminated(self._job_run(job), status, _milliseconds(job.finished_at or job.created_at))

    def _job_run(self, job: JobRecord) -> str:
        for run in self._search(f"tags.`{JOB}` = '{job.id}'"):
            if TRIAL not in run.data.tags:
                return str(run.info.run_id)
        tags = {JOB: job.id, **{f"luthier.metadata.{name}": value for name, value in job.metadata.items()}}
        made = self._client.create_run(self._experiment(), _milliseconds(job.created_at), tags, run_name=job.id)
        return str(made.info.run_id)

    def _search(self, what: str) -> list[Any]:
        found: list[Any] = self._client.search_runs([self._experiment()], what, max_results=10_000)
        return found

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        return str(self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
