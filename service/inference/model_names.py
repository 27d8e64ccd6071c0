"""The names of models, and what the name in a request refers to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from luthier.errors import NotFound, UserError
from luthier.models.base_model import BaseModelEntry
from luthier.store import Connection, aliases, artifacts, jobs, models, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.worker_protocol import Artifact, Weights

NAME_TAIL: Final = 8  # last characters of the job's id, which its model's name ends with
_OF_TRIAL: Final = re.compile(
    rf"(?P<model>ft:[^:]+:[^:]+:(?P<tail>[^:]{{{NAME_TAIL}}})):trial-(?P<number>\d{{1,6}})(?P<step>-step-\d+)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A model that can be loaded: a base model, or the saved weights of a trial."""

    name: str
    base: BaseModelEntry | None  # None where a trial's base is no longer registered
    job: JobRecord | None = None
    trial: TrialRecord | None = None
    kept: tuple[Artifact, ...] = ()

    @property
    def weights(self) -> Weights:
        """Return what a worker loads. Adapters are preferred: their base is probably in memory already."""
        if self.trial is None:
            return Weights(base=self.base)
        by_kind = {artifact.kind: artifact for artifact in self.kept}
        preferred = ("merged", "adapter") if self.base is None else ("adapter", "merged")
        return Weights(artifact=next(by_kind[kind] for kind in preferred if kind in by_kind))

    def require_decoder(self) -> None:
        """Raises UserError for an encoder."""
        if self.base is not None and self.base.facts.family == "encoder":
            raise UserError(
                f"{self.name} is an encoder ({self.base.facts.architecture}), which fills masked tokens and generates "
                'no text; export it and load it with transformers\' pipeline("fill-mask")',
                param="model",
            )


def resolve(c: Connection, name: str) -> Resolved:
    """Return the model called `name`. Raises NotFound with the reason.

    A name is that of a base model, of the result of a job (`ft:…`), of a trial whose weights are kept
    (`ft:…:trial-N`), or of an alias (`alias/NAME`).
    """
    name = aliases.resolve(c, name)
    job = jobs.by_model(c, name)
    if job is not None and job.best_trial_id is not None:
        return _of_trial(c, name, job, trials.get(c, job.best_trial_id))
    if found := _OF_TRIAL.fullmatch(name):
        return _checkpoint(c, name, found)
    entry = _registered(c, name)
    if entry is None:
        raise NotFound(f"model {name!r} was not found; GET /v1/models lists the models", param="model")
    return Resolved(name=name, base=entry)


def result_name(job: JobRecord, winner: TrialRecord) -> str:
    """Return the name of a job's result: ft:BASE:SUFFIX:TAIL."""
    return f"ft:{winner.design.architecture.base}:{job.suffix or 'luthier'}:{job.id[-NAME_TAIL:]}"


def trial_name(job: JobRecord, trial: TrialRecord, step: int | None = None) -> str:
    """Return the name of a trial as a model, at the end of its training or at an earlier step."""
    return f"{result_name(job, trial)}:trial-{trial.number}{'' if step is None else f'-step-{step}'}"


def usable_name(job: JobRecord, trial: TrialRecord, kept: Sequence[Artifact]) -> str | None:
    """Return the name that a trial's model can be used under now; None where its weights are not kept."""
    if not trial.design.stages:
        return trial.design.architecture.base
    if not kept:
        return None
    return job.fine_tuned_model if job.best_trial_id == trial.id else trial_name(job, trial)


def _checkpoint(c: Connection, name: str, found: re.Match[str]) -> Resolved:
    for job in jobs.with_tail(c, found["tail"]):
        for trial in trials.of_job(c, job.id):
            if trial.number == int(found["number"]) and result_name(job, trial) == found["model"]:
                if found["step"]:
                    raise NotFound(
                        f"{name!r} is not kept: only the final weights of {trial_name(job, trial)} are",
                        param="model",
                    )
                return _of_trial(c, name, job, trial)
    raise NotFound(f"model {name!r} was not found: no job has such a trial", param="model")


def _of_trial(c: Connection, name: str, job: JobRecord, trial: TrialRecord) -> Resolved:
    base = _registered(c, trial.design.architecture.base)
    if not trial.design.stages and base is not None:
        return Resolved(name=name, base=base)
    kept = tuple(artifacts.of_trial(c, trial.id))
    if not kept:
        raise NotFound(
            f"the weights of {name!r} are not kept: trial {trial.number} of job {job.id} is {trial.state}, and only "
            "the weights of the best trials are kept",
            param="model",
        )
    return Resolved(name=name, base=base, job=job, trial=trial, kept=kept)


def _registered(c: Connection, name: str) -> BaseModelEntry | None:
    try:
        return models.get(c, name)
    except NotFound:
        return None
