"""What models are called, and what a name in a request stands for."""

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

NAME_TAIL: Final = 8  # characters of the job's id in the name of its model
_OF_TRIAL: Final = re.compile(
    rf"(?P<model>ft:[^:]+:[^:]+:(?P<tail>[^:]{{{NAME_TAIL}}})):trial-(?P<number>\d{{1,6}})(?P<step>-step-\d+)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A model that can be loaded: a base model, or the kept weights of a trial."""

    name: str
    base: BaseModelEntry | None  # as it is registered now; None where a trial's base is no longer registered
    job: JobRecord | None = None
    trial: TrialRecord | None = None
    kept: tuple[Artifact, ...] = ()

    @property
    def weights(self) -> Weights:
        """What a worker loads. An adapter goes on the base that is likely to be in memory already."""
        if self.trial is None:
            return Weights(base=self.base)
        by_kind = {artifact.kind: artifact for artifact in self.kept}
        preferred = ("merged", "adapter") if self.base is None else ("adapter", "merged")
        return Weights(artifact=next(by_kind[kind] for kind in preferred if kind in by_kind))

    def require_decoder(self) -> None:
        """Raises UserError for an encoder."""
        if self.base is not None and self.base.facts.family == "encoder":
            raise UserError(
                f"{self.name} is an encoder ({self.base.facts.architecture}): it fills masked tokens and does not "
                'answer; export it and load it with transformers\' pipeline("fill-mask")',
                param="model",
            )


def resolve(c: Connection, name: str) -> Resolved:
    """The model called `name`: a registered base model, the result of a job (`ft:…`), a trial of a job whose weights
    are kept (`ft:…:trial-N`), or what an alias stands for now (`alias/NAME`). Raises NotFound with the reason.
    """
    name = aliases.resolve(c, name)
    job = jobs.by_model(c, name)
    if job is not None and job.best_trial_id is not None:
        return _of_trial(c, name, job, trials.get(c, job.best_trial_id))
    if found := _OF_TRIAL.fullmatch(name):
        return _checkpoint(c, name, found)
    entry = _registered(c, name)
    if entry is None:
        raise NotFound(f"there is no model {name!r}; GET /v1/models lists those there are", param="model")
    return Resolved(name=name, base=entry)


def result_name(job: JobRecord, winner: TrialRecord) -> str:
    """What a job's result is called: ft:BASE:SUFFIX:TAIL."""
    return f"ft:{winner.design.architecture.base}:{job.suffix or 'luthier'}:{job.id[-NAME_TAIL:]}"


def trial_name(job: JobRecord, trial: TrialRecord, step: int | None = None) -> str:
    """What a trial is called as a model, at the end of its training or at a step before that."""
    return f"{result_name(job, trial)}:trial-{trial.number}{'' if step is None else f'-step-{step}'}"


def usable_name(job: JobRecord, trial: TrialRecord, kept: Sequence[Artifact]) -> str | None:
    """The name under which a trial's model answers now; None where its weights are not kept."""
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
                        f"of {trial_name(job, trial)} only the end is kept as a model, not {name!r}", param="model"
                    )
                return _of_trial(c, name, job, trial)
    raise NotFound(f"there is no model {name!r}; no job has such a trial", param="model")


def _of_trial(c: Connection, name: str, job: JobRecord, trial: TrialRecord) -> Resolved:
    base = _registered(c, trial.design.architecture.base)
    if not trial.design.stages and base is not None:
        return Resolved(name=name, base=base)
    kept = tuple(artifacts.of_trial(c, trial.id))
    if not kept:
        raise NotFound(
            f"the weights of {name!r} are not there: trial {trial.number} of job {job.id} is {trial.state}, and only "
            "the best trials keep theirs",
            param="model",
        )
    return Resolved(name=name, base=base, job=job, trial=trial, kept=kept)


def _registered(c: Connection, name: str) -> BaseModelEntry | None:
    try:
        return models.get(c, name)
    except NotFound:
        return None
