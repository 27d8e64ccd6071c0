"""The result of a job: the recommended trial, its weights, and the whole search as an Optuna study."""

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
from service.inference.model_names import usable_name
from service.results import card, serializers, weights
from service.schemas.params import JobId

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])

Form = Literal["adapter", "merged", "gguf"]

SQLITE: Final = "application/vnd.sqlite3"
FILE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {SQLITE: {}}, "description": "An SQLite file"}}


Which = Annotated[
    str | None,
    Query(alias="trial", max_length=200, description="id or number of another trial; left out: the recommended one"),
]


@router.get("/best", summary="Get the recommended trial")
def get_best(ctx: Ctx, job_id: JobId, trial: Which = None) -> Best:
    """The trial that the report recommends, beside the untuned base and the plain LoRA default, on validation and test
    rows. Where the report recommends none, it is the best design on the validation rows so far. 404 until a trial is
    complete.
    """
    with ctx.database.read() as c:
        found = weights.named(c, ctx, job_id, trial)
        return serializers.best(found, artifacts.of_trial(c, found.trial.id))


@router.get("/artifact", summary="Download a trial's weights", response_class=StreamingResponse, responses=TAR)
def get_artifact(
    ctx: Ctx,
    job_id: JobId,
    trial: Which = None,
    form: Annotated[
        Form,
        Query(
            alias="format",
            description="`adapter`: PEFT's files; `merged`: a whole model, ready to load (not for prompt and prefix "
            "tuning); `gguf`: the merged model as one file for llama.cpp, with an Ollama Modelfile",
        ),
    ] = "merged",
) -> StreamingResponse:
    """The weights of the recommended trial, or of another one that is kept."""
    filename = f"{job_id}-{form}.tar"
    with ctx.database.read() as c:
        found, artifact = weights.of_named(c, ctx, job_id, "merged" if form == "gguf" else form, trial)
        name = usable_name(found.job, found.trial, [artifact])
        added = card.section(c, found)
    if form == "gguf":
        return tar(portable(ctx.blobs, artifact.files, name or found.trial.id), found.trial, filename)
    return tar_of(ctx, found.trial, artifact, filename, card=added)


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
