"""The form for a new job, and the playground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from luthier.design import Design
from luthier.metrics import METRICS
from luthier.models.base_model import BaseModelEntry
from luthier.store import files, jobs, models, trials
from luthier.trial import JobState
from search.methods import EDITS
from search.space.samplers import Value
from search.space.validate import edit_refusal
from service.context import Ctx
from service.dashboard.layout import page
from service.dashboard.trial import values_of
from service.results import serializers

router = APIRouter(include_in_schema=False)

FILES: Final = 200


@router.get("/new")
def new_job(
    request: Request,
    ctx: Ctx,
    file: Annotated[str | None, Query()] = None,
    job: Annotated[str | None, Query(description="job to copy the settings from")] = None,
    trial: Annotated[str | None, Query(description="trial of that job whose design is pinned")] = None,
) -> Response:
    with ctx.database.read() as c:
        records, _ = files.list_(c, None, FILES)
        entries = models.list_(c)
        source = None if job is None else jobs.get(c, job)
        pinned = None if job is None or trial is None else trials.named(c, job, trial)
    prefilled = None
    if source is not None:
        prefilled = {
            "training_file": source.training_file,
            "validation_file": source.validation_file,
            "suffix": source.suffix,
            "task": source.task.model_dump(mode="json", exclude_defaults=True),
            "search": source.search.model_dump(mode="json", exclude={"pin", "deadline"}),
            "constraints": source.constraints.model_dump(mode="json", exclude_none=True),
            "pin": source.search.pin.model_dump(mode="json", exclude_none=True)
            if pinned is None or not pinned.design.stages
            else _pin(pinned.design, entries),
        }
    return page(
        request,
        "new.html.jinja",
        title="New job",
        files=[serializers.file(record) for record in records],
        models=entries,
        chosen=file or (None if source is None else source.training_file),
        source=source,
        pinned=pinned,
        prefilled=prefilled,
        objectives=[(spec.objective, spec.label) for spec in METRICS if spec.objective is not None],
    )


@router.get("/playground")
def playground(request: Request, ctx: Ctx, model: Annotated[str | None, Query()] = None) -> Response:
    """Show two models side by side: the winner and its base."""
    with ctx.database.read() as c:
        base = [entry.name for entry in models.list_(c) if entry.facts.family == "decoder"]
        latest, _ = jobs.list_(c, None, FILES, {})
        tuned = []
        for record in latest:
            if record.state is JobState.SUCCEEDED and record.fine_tuned_model and record.best_trial_id:
                design = trials.get(c, record.best_trial_id).design
                if design.architecture.base in base:
                    tuned.append((record.fine_tuned_model, design.architecture.base, design.summary()))
    bases = {name: on for name, on, _ in tuned}
    right = model or (tuned[0][0] if tuned else None)
    left = bases.get(right or "", base[0] if base else None)
    return page(request, "playground.html.jinja", title="Playground", base=base, tuned=tuned, left=left, right=right)


def _pin(design: Design, entries: Sequence[BaseModelEntry]) -> dict[str, list[Value]]:
    """Return the design as pins, also on the edits that it does not make."""
    found = values_of(design)
    entry = next((entry for entry in entries if entry.name == design.architecture.base), None)
    if entry is not None:
        free = [spec for spec in EDITS if spec.edit not in found and edit_refusal(spec.edit, entry) is None]
        found |= {spec.edit: spec.own(entry.facts) for spec in free}
    return {name: [value] for name, value in found.items()}
