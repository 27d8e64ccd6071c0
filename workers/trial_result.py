"""The end of a trial: judge the model, export it if the service keeps it, and put together the final report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.design import Design
from luthier.metrics import phrases
from luthier.trial import Metrics, RowScores, Sample, StageLength
from luthier.worker_protocol import Artifact, Finished, Judged
from workers import cache
from workers.evaluate.judge import general_bits_per_byte, judge_rows
from workers.evaluate.samples import sample_answers
from workers.export.artifacts import Exported, export
from workers.lease import Lease
from workers.service_client import ServiceClient
from workers.train.forward import CausalModel
from workers.train.reward_model import Scorer
from workers.trial_watch import StageScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model to judge, with what its training left beside it.

    adapter       folder where PEFT saved the adapter, if one fits the registered base model
    scorer        the reward model, if the design trained one
    tokens        tokens trained on, in all leases together
    stage_scores  scores on held-out rows after each stage but the last
    lengths       how long each stage was trained
    """

    model: CausalModel
    adapter: Path | None = None
    scorer: Scorer | None = None
    tokens: int = 0
    stage_scores: Sequence[StageScores] = ()
    lengths: Sequence[StageLength] = ()

    def as_trained(self, design: Design) -> Design:
        """Return the design with the epochs after which each stage had its result."""
        stages = [
            stage.model_copy(update={"optimiser": stage.optimiser.model_copy(update={"epochs": length.epochs})})
            for stage, length in zip(design.stages, self.lengths, strict=False)
        ]
        return design.model_copy(update={"stages": (*stages, *design.stages[len(stages) :])})


def conclude(service: ServiceClient, lease: Lease, candidate: Candidate, scratch: Path) -> Finished:
    """Judge the model on the validation rows, then do what the service asks for: test scores, samples, export."""
    assignment, spec = lease.assignment, lease.assignment.judge
    model, tokenizer = candidate.model, cache.tokenizer(assignment.base, spec)
    lease.trained()
    lease.check()
    metrics, _ = _score(service, lease, model, spec.validation)
    lease.say(f"Judged on {metrics.rows} validation rows: {phrases('log', metrics, spec.objective)}")
    lease.check()
    wanted = service.judged(
        assignment.trial_id, Judged(**lease.claim, metrics=metrics, device_seconds=lease.device_seconds)
    )
    samples: tuple[Sample, ...] = ()
    if wanted.keep:
        samples = sample_answers(model, tokenizer, spec, cache.rows(service.get_blob(spec.validation)))
    test_metrics: Metrics | None = None
    test_scores: RowScores | None = None
    artifacts: tuple[Artifact, ...] = ()
    if wanted.test:
        test_metrics, test_scores = _score(service, lease, model, spec.test)
        forgetting = general_bits_per_byte(model, tokenizer, spec)
        test_scores = test_scores.model_copy(update={"general_bits_per_byte": forgetting})
        lease.say(f"Judged on {test_metrics.rows} test rows: {phrases('log', test_metrics, spec.objective)}")
        if wanted.keep and assignment.design.stages:
            artifacts = _export(service, lease, candidate, scratch / "export", metrics, test_metrics)
    return Finished(
        **lease.claim,
        outcome="complete",
        device_seconds=lease.device_seconds,
        metrics=metrics,
        test_metrics=test_metrics,
        test_scores=test_scores,
        usage=lease.meter.usage(),
        artifacts=artifacts,
        trained_tokens=candidate.tokens,
        lengths=tuple(candidate.lengths),
        points=lease.drain(),
        lines=lease.drain_lines(),
        samples=samples,
    )


def _score(service: ServiceClient, lease: Lease, model: CausalModel, split: str) -> tuple[Metrics, RowScores]:
    spec = lease.assignment.judge
    rows = cache.rows(service.get_blob(split))
    with lease.meter.judging(min(len(rows), spec.max_rows)):
        return judge_rows(model, cache.tokenizer(lease.assignment.base, spec), spec, rows)


def _export(
    service: ServiceClient, lease: Lease, candidate: Candidate, folder: Path, metrics: Metrics, test_metrics: Metrics
) -> tuple[Artifact, ...]:
    assignment = lease.assignment
    assignment = assignment.model_copy(update={"design": candidate.as_trained(assignment.design)})
    exported = export(
        folder,
        model=candidate.model,
        tokenizer=cache.tokenizer(assignment.base, assignment.judge),
        adapter=candidate.adapter,
        scorer=candidate.scorer,
        assignment=assignment,
        metrics=metrics,
        test_metrics=test_metrics,
        train_rows=cache.rows(service.get_blob(assignment.train)),
        validation_rows=cache.rows(service.get_blob(assignment.judge.validation)),
        stage_scores=candidate.stage_scores,
    )
    artifacts = tuple(_upload(service, lease, artifact) for artifact in exported)
    lease.say(f"Exported: {', '.join(f'{one.kind} ({one.bytes / 1e6:.1f} MB)' for one in artifacts)}")
    return artifacts


def _upload(service: ServiceClient, lease: Lease, exported: Exported) -> Artifact:
    files: dict[str, str] = {}
    size = 0
    for file in sorted(path for path in exported.folder.rglob("*") if path.is_file()):
        lease.check()
        files[file.relative_to(exported.folder).as_posix()] = service.put_blob(file)
        size += file.stat().st_size
    return Artifact(kind=exported.kind, files=files, bytes=size)
