"""The result of a job: the best trial, its weights, and the whole search as an Optuna study."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from luthier.api_types import Best
from luthier.store import artifacts
from service.api.downloads import TAR, tar, tar_of
from service.context import Ctx
from service.exports import optuna_study
from service.exports.llama_cpp import portable
from service.results import serializers, weights
from service.schemas.params import JobId

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])

Form = Literal["adapter", "merged", "gguf"]

SQLITE: Final = "application/vnd.sqlite3"
FILE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {SQLITE: {}}, "description": "An SQLite file"}}


@router.get("/best", summary="Get the best trial")
def get_best(ctx: Ctx, job_id: JobId) -> Best:
    """The winner beside the untuned base and the plain LoRA default, on validation and test rows; while the job runs,
    the best so far. 404 until a trial is complete.
    """
    with ctx.database.read() as c:
        job, rows, winner = weights.winner(c, job_id)
        return serializers.best(job, rows, winner, artifacts.of_trial(c, winner.id))


@router.get("/artifact", summary="Download the best trial's weights", response_class=StreamingResponse, responses=TAR)
def get_artifact(
    ctx: Ctx,
    job_id: JobId,
    form: Annotated[
        Form,
        Query(
            alias="format",
            description="`adapter`: PEFT's files; `merged`: a whole model, ready to load (not for prompt and prefix "
            "tuning); `gguf`: the merged model as one file for llama.cpp, with an Ollama Modelfile",
        ),
    ] = "merged",
) -> StreamingResponse:
    filename = f"{job_id}-{form}.tar"
    with ctx.database.read() as c:
        job, winner, artifact = weights.of_winner(c, job_id, "merged" if form == "gguf" else form)
    if form == "gguf":
        return tar(portable(ctx.blobs, artifact.files, job.fine_tuned_model or winner.id), winner, filename)
    return tar_of(ctx, winner, artifact, filename)


@router.get("/optuna", summary="Download the job as an Optuna study", response_class=FileResponse, responses=FILE)
def get_optuna(ctx: Ctx, job_id: JobId) -> FileResponse:
    """An Optuna storage file with the trials so far: `optuna-dashboard sqlite:///FILE` shows it, and
    `optuna.load_study` loads it. Changing the file does not change the job."""
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
