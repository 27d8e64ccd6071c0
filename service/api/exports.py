"""A job in the formats of other tools."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from service.api.jobs import JobId
from service.context import Here
from service.exports import optuna_study

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])

SQLITE: Final = "application/vnd.sqlite3"
FILE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {SQLITE: {}}, "description": "An SQLite file"}}


@router.get("/optuna", summary="Download the job as an Optuna study", response_class=FileResponse, responses=FILE)
def get_optuna(here: Here, job_id: JobId) -> FileResponse:
    """An Optuna storage file, as far as the job has come: `optuna-dashboard sqlite:///FILE` shows it, and
    `optuna.load_study` reads it. Changing it changes nothing here."""
    folder = Path(tempfile.mkdtemp(prefix="luthier-optuna-"))
    try:
        optuna_study.write(here, job_id, folder / "study.db")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return FileResponse(
        folder / "study.db",
        media_type=SQLITE,
        filename=f"{job_id}.optuna.db",
        background=BackgroundTask(shutil.rmtree, folder),
    )
