"""Run one leased trial: build the model, train it, then judge and export it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedModel

from luthier.errors import BlobMissing, Infeasible
from luthier.worker_protocol import Assignment, Finished
from workers import cache
from workers.evaluate.judge import renderer
from workers.export import load
from workers.lease import Lease
from workers.service_client import ServiceClient
from workers.train import checkpoint as checkpoints
from workers.train.algorithms import Teacher
from workers.train.architectures import build
from workers.train.checkpoint import Checkpoint
from workers.train.forward import layout
from workers.train.loop import train
from workers.train.rollouts.play import world_of
from workers.trial_result import Candidate, conclude
from workers.trial_watch import RESUME, TrialWatch


def run(service: ServiceClient, lease: Lease, device: torch.device, checkpoint_seconds: float) -> Finished:
    """Run the trial of a lease and return its final report.

    Raises LeaseLost, Stopped, Interrupted (Paused at a rung), Infeasible or TrialFailed.
    """
    assignment = lease.assignment
    lease.meter.begin(device)
    lease.say(f"Lease {assignment.fence} on {device}: {assignment.design.summary()}")
    with tempfile.TemporaryDirectory(prefix="luthier-trial-") as folder:
        scratch = Path(folder)
        if assignment.weights is not None:  # a champion: an earlier job's export, judged on this job's rows
            model = load.load(service, assignment.base, assignment.weights, scratch)
            torch.nn.Module.to(model, device)
            candidate = Candidate(model=model)
        else:
            edited = _build(service, assignment)
            if (reading := layout(edited)).why:
                lease.say(reading.describe())
            torch.nn.Module.to(edited, device)
            if assignment.design.stages:
                candidate = _train(service, lease, edited, checkpoint_seconds, scratch)
            else:
                candidate = Candidate(model=edited)
        return conclude(service, lease, candidate, scratch)


def _build(service: ServiceClient, assignment: Assignment) -> PreTrainedModel:
    """Return the edited base model, in host memory.

    Always on the CPU: the choice of layers to keep must not depend on the device that trains them.
    """
    architecture = assignment.design.architecture
    calibration: tuple[tuple[int, ...], ...] = ()
    if architecture.depth_rule == "block_influence":
        calibration = cache.calibration(assignment.base, assignment.judge, service.get_blob(assignment.train))
    return build(cache.base(assignment.base).model, architecture, calibration)


def _train(
    service: ServiceClient, lease: Lease, model: PreTrainedModel, checkpoint_seconds: float, scratch: Path
) -> Candidate:
    """Train the design's stages on `model`, from its latest checkpoint if there is one.

    The adapter is kept only where it fits the registered base model. After an architecture edit the base is another
    model. A base without a head of its own would get a random head from PEFT's users.

    Raises Infeasible where there would be nothing to export.
    """
    assignment = lease.assignment
    resume = _fetch_checkpoint(service, assignment, scratch)
    if resume is not None:
        lease.say(f"Resumes from the checkpoint at stage {resume.position.stage + 1}, step {resume.position.step}")
    watch = TrialWatch(service, lease, checkpoint_seconds, scratch)
    tokenizer = cache.tokenizer(assignment.base, assignment.judge)
    trained = train(
        model,
        assignment.design,
        watch.examples,
        seed=assignment.seed,
        watch=watch,
        world=world_of(assignment.judge, renderer(tokenizer, assignment.judge)),
        teacher=teacher_of(assignment, model.device),
        resume=resume,
    )
    adapter = scratch / "adapter"
    fits = trained.whole_base and assignment.base.facts.head == "own"
    has_adapter = fits and trained.applied.save_adapter(adapter)
    if not (has_adapter or trained.applied.mergeable):
        raise Infeasible("this update cannot be merged, and its adapter would not fit the base model as registered")
    return Candidate(
        model=trained.judged(),
        adapter=adapter if has_adapter else None,
        scorer=trained.scorer,
        tokens=trained.tokens,
        stage_scores=tuple(watch.stage_scores),
        lengths=trained.lengths,
    )


def teacher_of(assignment: Assignment, device: torch.device) -> Teacher | None:
    """Return the model that the assignment's design distils, on the device; None if there is none."""
    if assignment.teacher is None:
        return None
    return Teacher(
        model=cache.frozen(assignment.teacher, device),
        tokenizer=cache.tokenizer(assignment.base, assignment.judge),
        max_new_tokens=assignment.judge.max_new_tokens,
    )


def _fetch_checkpoint(service: ServiceClient, assignment: Assignment, scratch: Path) -> Checkpoint | None:
    """Download the checkpoint to resume from; None where there is none. A lost one only costs a fresh start."""
    if assignment.checkpoint is None:
        return None
    folder = scratch / RESUME
    folder.mkdir()
    try:
        manifest = json.loads(service.get_blob(assignment.checkpoint).read_text())
        for name, digest in manifest.items():
            service.fetch(digest, folder / name)
    except BlobMissing:
        shutil.rmtree(folder)
        return None
    return checkpoints.load(folder)
