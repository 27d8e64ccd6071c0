"""What a job has found: its trials, their curves, the best of them, and its weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from luthier.api_types import Best, Page, Trial
from luthier.design import VirtualTokens
from luthier.errors import NotFound
from luthier.store import Connection, artifacts, jobs, measurements, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState, Point
from luthier.worker_protocol import Artifact
from service.api.jobs import JobId
from service.api.params import After
from service.context import Context, Ctx, utc_now
from service.exports import optuna_study
from service.exports.llama_cpp import portable
from service.exports.tar_stream import Archive, Entry, of_blob
from service.jobs import history
from service.results import serializers

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])

Form = Literal["adapter", "merged", "gguf"]
TAR: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/x-tar": {}}, "description": "A tar stream"}
}

SQLITE: Final = "application/vnd.sqlite3"
FILE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {SQLITE: {}}, "description": "An SQLite file"}}


@router.get("/trials", summary="List a job's trials")
def list_trials(
    ctx: Ctx,
    job_id: JobId,
    after: After = None,
    limit: Annotated[int, Query(description="trials on one page", ge=1, le=10_000)] = 1000,
) -> Page[Trial]:
    """In the order in which they were proposed. Trial 0 is the untuned base model, trial 1 the plain LoRA default."""
    with ctx.database.read() as c:
        jobs.get(c, job_id)
        rows = trials.of_job(c, job_id)
        brought = measurements.brought(c, job_id)
    start = 0 if after is None else _position(rows, after) + 1
    shown = rows[start : start + limit]
    repeats = history.repeats(rows)
    data = tuple(serializers.trial(row, repeats.get(row.number), brought.get(row.id)) for row in shown)
    return Page(data=data, has_more=start + limit < len(rows))


@router.get("/trials/{trial_id}/points", summary="Read a trial's curves")
def list_points(
    ctx: Ctx,
    job_id: JobId,
    trial_id: str,
    name: Annotated[str | None, Query(description="only this curve", examples=["train_loss"])] = None,
) -> Page[Point]:
    """By stage, name and step."""
    with ctx.database.read() as c:
        trial = trials.get(c, trial_id)
        if trial.job_id != job_id:
            raise NotFound(f"job {job_id} has no trial {trial_id!r}", param="trial_id")
        return Page(data=tuple(measurements.of_trial(c, trial_id, name)))


@router.get("/best", summary="Look at the best trial")
def get_best(ctx: Ctx, job_id: JobId) -> Best:
    """The winner beside the untuned base and the plain LoRA default, on validation and test rows; while the job runs,
    the best so far. 404 until a trial is complete.
    """
    with ctx.database.read() as c:
        job, rows, winner = _winner(c, job_id)
        return serializers.best(job, rows, winner, artifacts.of_trial(c, winner.id))


@router.get("/artifact", summary="Download the best trial's weights", response_class=StreamingResponse, responses=TAR)
def get_artifact(
    ctx: Ctx,
    job_id: JobId,
    form: Annotated[
        Form,
        Query(
            alias="format",
            description="`adapter`: PEFT's files; `merged`: a whole model, ready to load, which prompt and prefix "
            "cannot make; `gguf`: the merged model as one file for llama.cpp, with an Ollama Modelfile",
        ),
    ] = "merged",
) -> StreamingResponse:
    with ctx.database.read() as c:
        job, _, winner = _winner(c, job_id)
        kept = {artifact.kind: artifact for artifact in artifacts.of_trial(c, winner.id)}
    stored: Literal["adapter", "merged"] = "merged" if form == "gguf" else form
    if stored not in kept:
        raise NotFound(_why_not(job, winner, stored, tuple(kept)), param="format")
    filename = f"{job_id}-{form}.tar"
    if form == "gguf":
        return download(portable(ctx.blobs, kept[stored].files, job.fine_tuned_model or winner.id), winner, filename)
    return tar_of(ctx, winner, kept[stored], filename)


def tar_of(ctx: Context, trial: TrialRecord, artifact: Artifact, filename: str) -> StreamingResponse:
    """A trial's weights as a download."""
    return download([of_blob(ctx.blobs, path, digest) for path, digest in artifact.files.items()], trial, filename)


def download(entries: Iterable[Entry], trial: TrialRecord, filename: str) -> StreamingResponse:
    archive = Archive(entries, trial.finished_at or utc_now())
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Content-Length": str(archive.bytes)}
    return StreamingResponse(iter(archive), 200, headers, "application/x-tar")


def _position(rows: list[TrialRecord], trial_id: str) -> int:
    for position, row in enumerate(rows):
        if row.id == trial_id:
            return position
    raise NotFound(f"there is no trial {trial_id!r} to continue after", param="after")


def _winner(c: Connection, job_id: str) -> tuple[JobRecord, list[TrialRecord], TrialRecord]:
    job, rows = jobs.get(c, job_id), trials.of_job(c, job_id)
    winner = serializers.best_trial(job, rows)
    if winner is None:
        raise NotFound(f"job {job_id} has no complete trial: it is {job.state}", param="job_id")
    return job, rows, winner


def _why_not(job: JobRecord, winner: TrialRecord, form: str, kept: tuple[str, ...]) -> str:
    if job.state is JobState.SUCCEEDED and job.fine_tuned_model is None:
        return f"the model of job {job.id} was deleted"
    if not winner.design.stages:
        return "the best trial is the untuned base model, which has no weights of its own"
    if form == "adapter" and "merged" in kept:
        return (
            f"the best trial ({winner.design.summary()}) has no adapter that fits the base model as it is registered; "
            "ask for format=merged"
        )
    if form == "merged" and isinstance(winner.design.stages[-1].update, VirtualTokens):
        return (
            f"the best trial ({winner.design.summary()}) adds virtual tokens, which cannot be folded into the weights "
            "of a model, so there is no merged one; ask for format=adapter"
        )
    return f"the weights of trial {winner.number} were not kept as {form}; kept: {', '.join(kept) or 'nothing'}"


@router.get("/optuna", summary="Download the job as an Optuna study", response_class=FileResponse, responses=FILE)
def get_optuna(ctx: Ctx, job_id: JobId) -> FileResponse:
    """An Optuna storage file, as far as the job has come: `optuna-dashboard sqlite:///FILE` shows it, and
    `optuna.load_study` reads it. Changing it changes nothing here."""
    folder = Path(tempfile.mkdtemp(prefix="luthier-optuna-"))
    try:
        optuna_study.write(ctx, job_id, folder / "study.db")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return FileResponse(
        folder / "study.db",
        media_type=SQLITE,
        filename=f"{job_id}.optuna.db",
        background=BackgroundTask(shutil.rmtree, folder),
    )
