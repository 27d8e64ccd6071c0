"""What a design would take, asked of the service; and designs that the service does not launch."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.algorithms import Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import IllegalDesign, NotFound, UserError
from luthier.store import trials
from luthier.trial import TrialState, Usage
from luthier.updates import Full
from luthier.worker_protocol import Assignment, Finished
from tests.integration.service_harness import FakeWorker, Service, preferences, sums

pytest_plugins = ("tests.integration.service_fixtures",)

GIB = 2**30


@pytest.fixture
def file(service: Service) -> str:
    return service.upload(sums())


class Measuring(FakeWorker):
    """Says at the end what each trial took: so many times what the service expects by default."""

    def work(self, assignment: Assignment) -> None:
        self.seconds = 115.0 if assignment.design.stages else 1.0
        super().work(assignment)

    def finish(self, assignment: Assignment, **report: Any) -> Any:
        if report["outcome"] in ("complete", "waiting") and assignment.design.stages:
            report["usage"] = Usage(
                peak_memory_bytes=800 * 2**20,
                train_seconds=100.0,
                train_tokens=1500,
                steps=6,
                judge_seconds=10.0,
                judged_rows=24,
            )
        return super().finish(assignment, **report)


def test_the_plain_default_is_estimated_where_nothing_else_is_said(service: Service, file: str) -> None:
    found = service.client.estimate(dataset=file)
    assert found.summary.startswith("tiny-chat → sft lora r16")
    assert found.trainable_parameters == 245_760
    assert found.parameters == 1_803_904 + 245_760
    assert found.feasible
    assert found.why is None
    assert found.calibrated_from == 0
    assert found.unchanged is None
    assert found.device == "this machine's CPU"
    assert sum(found.parts.seconds.values()) == pytest.approx(found.seconds)
    assert sum(found.parts.memory.values()) == pytest.approx(found.memory_bytes, abs=20)
    assert service.client.jobs() == []


def test_a_change_stands_beside_what_it_changes(service: Service, file: str) -> None:
    found = service.client.estimate(dataset=file, model="tiny-chat", change={"rank": 64})
    assert found.unchanged is not None
    assert found.trainable_parameters == 4 * found.unchanged.trainable_parameters
    assert found.memory_bytes > found.unchanged.memory_bytes
    assert found.unchanged == service.client.estimate(dataset=file, model="tiny-chat")


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        ({"update": "full"}, "tiny-chat → sft full"),
        ({"epochs": 3}, " ≤3ep"),
        ({"schedule": "constant"}, " ≤60ep"),
        ({"schedule": "cosine"}, " ×3ep"),
        ({"schedule": "cosine", "epochs": 2}, " ×2ep"),
        ({"layers": 4}, "4 layers"),
        ({"kv_heads": 2, "update": "dora"}, "2 KV heads) → sft dora r16"),
        ({"update": "top_layers", "top_layers": 2}, "top 2 layers"),
        ({"algorithm": "clm", "batch_size": 5}, "clm lora r16"),
        ({"algorithm": "sft+grpo", "grpo_group": 4}, "grpo lora r16"),
        ({"placement": "mlp"}, "r16 on mlp"),
    ],
)
def test_any_axis_can_be_changed(service: Service, file: str, change: dict[str, Any], summary: str) -> None:
    assert summary in service.client.estimate(dataset=file, change=change).summary


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"speed": 2}, "change.speed", "'speed'"),
        ({"update": "bitfit"}, "change.update", "bias"),
        ({"update": "magic"}, "change.update", "choose from full"),
        ({"layers": 7}, "change.layers", "7 is not possible; choose from 6, 5, 4, 3, 2, 1 of tiny-chat"),
        ({"algorithm": "dpo"}, "change.algorithm", "dpo"),
        ({"rank": 0}, "change.rank", "choose from 1 to 1024"),
        ({"update": "full", "rank": 8}, "change.rank", "full"),
        ({"epochs": "many"}, "change.epochs", "epochs"),
        ({"schedule": "linear"}, "change.schedule", "constant"),
        ({"layers": 4, "update": "prompt"}, "change.update", "prompt"),
    ],
)
def test_a_change_that_cannot_be_is_refused_as_a_pin_would_be(
    service: Service, file: str, change: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        service.client.estimate(dataset=file, change=change)
    assert refused.value.param == param


def test_a_design_of_ones_own_is_estimated_and_checked(service: Service, file: str) -> None:
    stage = Stage(algorithm=Sft(), update=Full(), optimiser=Optimiser(learning_rate=1e-5, batch_size=3, epochs=1.5))
    design = Design(architecture=Architecture(base="tiny-chat"), stages=(stage,))
    found = service.client.estimate(dataset=file, design=design.model_dump(mode="json"))
    assert found.design == design
    assert found.trainable_parameters == found.parameters == 1_803_904
    edited = design.model_copy(update={"architecture": Architecture(base="tiny-chat", layers=9)})
    with pytest.raises(IllegalDesign, match="tiny-chat has 6"):
        service.client.estimate(dataset=file, design=edited.model_dump(mode="json"))
    other = design.model_copy(update={"architecture": Architecture(base="huge")})
    with pytest.raises(NotFound, match=r"'huge'.*tiny-chat") as refused:
        service.client.estimate(dataset=file, design=other.model_dump(mode="json"))
    assert refused.value.param == "design.architecture.base"


def test_what_is_missing_is_named(service: Service, file: str) -> None:
    with pytest.raises(UserError, match="`job`") as no_data:
        service.client.estimate(change={"rank": 64})
    with pytest.raises(NotFound, match=r"'huge'.*tiny-chat") as no_model:
        service.client.estimate(dataset=file, model="huge")
    with pytest.raises(NotFound, match=r"'gpu-7'.*none") as no_worker:
        service.client.estimate(dataset=file, device="gpu-7")
    assert [refused.value.param for refused in (no_data, no_model, no_worker)] == ["dataset", "model", "device"]


def test_a_device_can_be_a_worker_or_one_that_is_not_there(service: Service, worker: FakeWorker, file: str) -> None:
    assert service.client.estimate(dataset=file).device == "pretended"
    assert service.client.estimate(dataset=file, device=worker.name).device == "pretended"
    small = service.client.estimate(dataset=file, device={"kind": "cpu", "memory_bytes": GIB // 4})
    assert not small.feasible
    assert small.why is not None
    assert "256 MiB" in small.why
    card = service.client.estimate(dataset=file, device={"kind": "cuda", "memory_bytes": 80 * GIB})
    assert card.feasible
    assert card.parts.seconds["training"] < small.parts.seconds["training"]
    quantised = {"update": "qlora"}
    assert not service.client.estimate(dataset=file, device=worker.name, change=quantised).feasible
    assert service.client.estimate(
        dataset=file, device={"kind": "cuda", "memory_bytes": GIB * 80}, change=quantised
    ).feasible


def test_a_job_lends_its_rows_its_best_design_and_what_its_trials_took(service: Service, file: str) -> None:
    before = service.client.estimate(dataset=file)
    worker = Measuring(service.http)
    worker.register()
    job_id = service.submit(search={"trials": 4, "finalists": 1, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)
    found = service.client.estimate(job=job_id)
    assert found.design == service.client.best(job_id).design
    assert found.calibrated_from >= 2
    assert found.seconds > 5 * before.seconds
    assert found.memory_bytes == pytest.approx(800 * 2**20, rel=0.2)
    default = service.client.estimate(job=job_id, trial="1", change={"rank": 4})
    assert default.unchanged is not None
    assert default.unchanged.design == service.client.trials(job_id)[1].design
    with pytest.raises(NotFound, match="'99'") as refused:
        service.client.estimate(job=job_id, trial="99")
    assert refused.value.param == "trial"


def test_preferences_start_from_their_own_default(service: Service) -> None:
    found = service.client.estimate(dataset=service.upload(preferences()))
    assert "dpo lora r16" in found.summary


def test_a_design_that_will_not_fit_is_never_launched(service: Service, worker: FakeWorker) -> None:
    limit = service.client.estimate(dataset=service.upload(sums())).memory_bytes + 2**20
    job_id = service.submit(search={"trials": 6, "confirmations": 0}, constraints={"memory_bytes": limit})
    worker.work_until_ended(service.client, job_id)
    refused = [trial for trial in service.client.trials(job_id) if trial.state is TrialState.INFEASIBLE]
    assert refused
    assert all(trial.started_at is None and trial.device_seconds == 0 for trial in refused)
    assert all("on pretended it is expected to need" in str(trial.error) for trial in refused)
    assert {a.design.digest() for a in worker.done}.isdisjoint(trial.design.digest() for trial in refused)


def test_a_job_that_nothing_fits_ends_and_says_why(service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 3}, constraints={"memory_bytes": 2**20})
    assert worker.work_until_ended(service.client, job_id) == "failed"
    error = service.client.job(job_id).error
    assert error is not None
    assert "1 MiB" in error.message
    assert worker.done == []
    assert len(service.client.trials(job_id)) <= 30


def test_a_trial_that_would_run_out_of_time_is_not_started(service: Service) -> None:
    worker = Measuring(service.http)
    worker.register()
    first = service.submit(search={"trials": 6, "finalists": 1, "confirmations": 0})
    worker.work_until_ended(service.client, first)
    fixed = {"schedule": ["cosine"], "epochs": [1, 2, 3]}
    second = service.submit(search={"trials": 6, "device_seconds": 10.0, "confirmations": 0, "pin": fixed})
    worker.work_until_ended(service.client, second)
    told = [trial.error for trial in service.client.trials(second) if trial.state is TrialState.INFEASIBLE]
    assert any("s are left" in str(error) for error in told)


def test_the_finish_is_estimated_from_what_trials_take(service: Service) -> None:
    worker = Measuring(service.http)
    worker.register()
    job_id = service.submit(search={"trials": 8, "finalists": 1, "confirmations": 0})
    for _ in range(3):
        worker.work(worker.take())
    job = service.client.job(job_id)
    assert job.estimated_finish is not None
    assert job.estimated_finish - job.created_at > 30  # no time has passed, but trials are said to take minutes


def test_usage_is_stored_with_the_trial(service: Service) -> None:
    worker = Measuring(service.http)
    worker.register()
    service.submit(search={"trials": 8, "finalists": 1, "pin": {"schedule": ["cosine"]}})
    worker.work(worker.take())
    assignment = worker.take()
    worker.work(assignment)
    worker.work(worker.take())  # pauses
    with service.context.database.read() as c:
        record = trials.get(c, assignment.trial_id)
        measured = trials.measured(c, 10)
    assert record.usage is not None
    assert record.usage.steps == 6
    assert [(found.device.name, found.state) for found in measured] == [
        ("pretended", TrialState.WAITING),
        ("pretended", TrialState.COMPLETE),
    ]
    assert Finished.model_fields["usage"].default is None
