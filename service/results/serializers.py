"""Turn rows of the store into resources of the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from luthier import api_types as api
from luthier.dataset import Profile
from luthier.metrics import mean_metrics
from luthier.models.base_model import BaseModelEntry
from luthier.store import aliases
from luthier.store.rows import AliasRecord, EventRecord, FileRecord, JobRecord, TrialRecord, WorkerRecord
from luthier.task import Pin
from luthier.trial import Metrics
from luthier.worker_protocol import Artifact
from service.inference.model_names import usable_name
from service.jobs import budget, history
from service.results import weights


def file(record: FileRecord) -> api.FileObject:
    facts = api.FileFacts(kind=record.kind, format=record.format, rows=_profile(record).rows)
    return api.FileObject(
        id=record.id,
        bytes=record.bytes,
        created_at=_seconds(record.created_at),
        filename=record.filename,
        luthier=facts,
    )


def dataset(record: FileRecord) -> api.Dataset:
    return api.Dataset(file_id=record.id, filename=record.filename, **dict(_profile(record)))


def job(
    record: JobRecord,
    trials: Sequence[TrialRecord],
    now: datetime,
    best: TrialRecord | None,
    work_left: tuple[float, int] | None = None,
) -> api.Job:
    """`best`: the trial that its results stand for. `work_left`: the device-seconds that it still needs, as estimated,
    and how many workers share them."""
    seconds, worker_count = work_left or (None, 1)
    finish = budget.estimated_finish(record, trials, now, work_left=seconds, worker_count=worker_count)
    estimated = None if finish is None else _seconds(finish)
    return api.Job(
        id=record.id,
        created_at=_seconds(record.created_at),
        finished_at=_maybe_seconds(record.finished_at),
        estimated_finish=estimated,
        status=record.state,
        error=None if record.error is None else api.JobFailure.model_validate(record.error),
        model=_model(record, best),
        fine_tuned_model=record.fine_tuned_model,
        training_file=record.training_file,
        validation_file=record.validation_file,
        method=_method(record),
        hyperparameters=_hyperparameters(record.search.pin),
        seed=record.seed,
        trained_tokens=record.trained_tokens,
        metadata=record.metadata,
        luthier=api.Progress(
            kind=record.judge.kind,
            objective=record.judge.objective,
            task=record.task,
            search=record.search,
            constraints=record.constraints,
            trials_done=sum(trial.state.terminal or trial.paused for trial in budget.designs(trials)),
            trials_total=record.search.trials,
            trials_running=budget.running(trials),
            trials_paused=sum(trial.paused for trial in trials),
            confirmations_done=sum(trial.state.terminal for trial in budget.confirmations(trials)),
            confirmations_total=max(budget.planned_confirmations(record.search), len(budget.confirmations(trials))),
            splits=1 + len(record.resplits),
            device_seconds=budget.device_seconds(trials),
            best=standing(best, trials),
            estimated_finish=estimated,
            notes=record.notes,
            tags=record.tags,
            schedule_id=record.schedule_id,
            paused=record.paused and not record.state.terminal,
            truncation=record.truncation,
            extensions=record.extensions,
        ),
    )


def standing(best: TrialRecord | None, trials: Sequence[TrialRecord]) -> api.Standing | None:
    """Return a trial in short, with means over its seeds; None before a trial is complete."""
    if best is None:
        return None
    found = [one.metrics for one in history.seeds(trials, best.number) if one.metrics is not None]
    return api.Standing(
        trial=best.id,
        number=best.number,
        summary=best.design.summary(),
        metrics=mean_metrics(found),
        seeds=len(found),
    )


def best(named: weights.Named, artifacts: Sequence[Artifact]) -> api.Best:
    trial, trials = named.trial, named.rows
    assert trial.metrics is not None  # only complete trials are named
    base, default, own = (history.seeds(trials, number) for number in (*history.BASELINES, trial.number))
    return api.Best(
        trial=trial.id,
        number=trial.number,
        summary=trial.design.summary(),
        design=trial.design,
        objective=named.job.judge.objective,
        metrics=mean_metrics([one.metrics for one in own if one.metrics]),
        base_metrics=_mean(one.metrics for one in base),
        default_metrics=_mean(one.metrics for one in default),
        test_metrics=_mean(one.test_metrics for one in own),
        base_test_metrics=_mean(one.test_metrics for one in base),
        default_test_metrics=_mean(one.test_metrics for one in default),
        seeds=len(own),
        default_seeds=max(1, len(default)),
        artifacts=tuple(artifacts),
        model=usable_name(named.job, trial, artifacts),
        recommendation=named.recommendation,
        winner=named.winner,
    )


def trial(
    job: JobRecord,
    record: TrialRecord,
    confirms: int | None,
    stage_scores: Mapping[int, Mapping[str, float]] | None = None,
    seeds: Sequence[TrialRecord] = (),
) -> api.Trial:
    """`confirms`: the number of the trial whose design it repeats. `stage_scores`: its held-out scores by stage.
    `seeds`: the complete trials of its design, one for each seed."""
    scores = stage_scores or {}
    return api.Trial(
        id=record.id,
        job_id=record.job_id,
        number=record.number,
        state=record.state,
        summary=record.design.summary(),
        design=record.design,
        seed=record.seed,
        origin=record.origin,
        confirms=confirms,
        split=job.split_of(record),
        rung=record.rung,
        goal=record.goal,
        paused=record.paused,
        measured=record.measured,
        worker=record.owner,
        attempts=record.attempts,
        created_at=_seconds(record.created_at),
        started_at=_maybe_seconds(record.started_at),
        finished_at=_maybe_seconds(record.finished_at),
        device_seconds=record.device_seconds,
        trained_tokens=record.trained_tokens,
        metrics=record.metrics,
        test_metrics=record.test_metrics,
        seeds=len(seeds) or None,
        mean_metrics=_mean(one.metrics for one in seeds),
        mean_test_metrics=_mean(one.test_metrics for one in seeds),
        error=record.error,
        lengths=record.lengths,
        stages=tuple(
            api.StageScore(
                stage=index,
                algorithm=stage.algorithm.kind,
                update=stage.update.kind,
                valid_loss=scores[index]["valid_loss"],
                valid_accuracy=scores[index].get("valid_accuracy"),
            )
            for index, stage in enumerate(record.design.stages[:-1])
            if "valid_loss" in scores.get(index, {})
        ),
    )


def event(record: EventRecord) -> api.Event:
    return api.Event(
        id=record.id,
        created_at=_seconds(record.created_at),
        level=record.level,
        type=record.type,
        message=record.message,
        data=record.data,
    )


def base_model(entry: BaseModelEntry, added_at: datetime) -> api.Model:
    return api.Model(id=entry.name, created=_seconds(added_at), source=entry.source, facts=entry.facts)


def fine_tuned_model(record: JobRecord) -> api.Model:
    assert record.fine_tuned_model is not None
    assert record.finished_at is not None
    return api.Model(id=record.fine_tuned_model, created=_seconds(record.finished_at), job=record.id)


def worker(record: WorkerRecord, *, live: bool) -> api.Worker:
    return api.Worker(
        id=record.id,
        name=record.name,
        device=record.device,
        pid=record.pid,
        created_at=_seconds(record.created_at),
        last_seen_at=_seconds(record.seen_at),
        live=live,
        generates=record.generates if live else None,
    )


def alias(history: Sequence[AliasRecord]) -> api.Alias:
    """`history`: the versions of one alias, the latest first."""
    current = history[0]
    return api.Alias(
        id=f"{aliases.PREFIX}{current.name}",
        name=current.name,
        model=current.model,
        job=current.job_id,
        versions=tuple(
            api.AliasVersion(
                version=record.version,
                model=record.model,
                job=record.job_id,
                origin=record.origin,
                contest=record.contest,
                created_at=_seconds(record.created_at),
            )
            for record in history
        ),
    )


def alias_model(record: AliasRecord) -> api.Model:
    """Return an alias as an entry in the list of models."""
    return api.Model(id=f"{aliases.PREFIX}{record.name}", created=_seconds(record.created_at), job=record.job_id)


def _profile(record: FileRecord) -> Profile:
    return Profile.model_validate(record.profile)


def _model(record: JobRecord, best: TrialRecord | None) -> str:
    """Return the winner's base model; before there is one, the only base model of the search, or "auto"."""
    if best is not None and record.best_trial_id == best.id:
        return best.design.architecture.base
    return str(_single(record.search.pin.model))


def _method(record: JobRecord) -> dict[str, Any] | None:
    """Return the pinned method in OpenAI's shape; None where the service designs the method."""
    if record.method is None:
        return None
    kind = record.method["type"]
    hyperparameters = _hyperparameters(record.search.pin).model_dump()
    if kind == "dpo":
        hyperparameters["beta"] = _single(record.search.pin.model_dump()["beta"])
    given: dict[str, Any] = {"hyperparameters": hyperparameters}
    if kind == "reinforcement" and record.task.grader is not None:
        given["grader"] = record.task.grader.model_dump(mode="json")
    return {"type": kind, kind: given}


def _hyperparameters(pin: Pin) -> api.Hyperparameters:
    """OpenAI's `n_epochs` is a whole number: a fraction is shown as "auto" here, and exactly in `luthier.search`."""
    epochs = _single(pin.epochs)
    return api.Hyperparameters(
        n_epochs=int(epochs) if isinstance(epochs, float) and epochs.is_integer() else "auto",
        batch_size=_single(pin.batch_size),
        learning_rate_multiplier=_single(pin.learning_rate_multiplier),
    )


def _single(pinned: Sequence[Any] | None) -> Any:
    return pinned[0] if pinned is not None and len(pinned) == 1 else "auto"


def _mean(metrics: Iterable[Metrics | None]) -> Metrics | None:
    """Return the mean over the seeds that have been scored; None where there is none."""
    found = [one for one in metrics if one is not None]
    return mean_metrics(found) if found else None


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _maybe_seconds(moment: datetime | None) -> int | None:
    return None if moment is None else _seconds(moment)
