"""Rows for the store's tests: valid, and each with something in every column."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sqlalchemy import Connection

from luthier.algorithms import Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.store import files, jobs, leases, trials
from luthier.store.rows import FileRecord, JobRecord, TrialRecord
from luthier.task import Constraints, DataKind, JudgeSpec, Search, StringCheck, Task
from luthier.trial import JobState, Metrics
from luthier.updates import Lora
from luthier.worker_protocol import Claim

NOW = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
METRICS = Metrics(
    perplexity=12.345678901234567, bits_per_byte=0.1, reward=0.5, reward_name="accuracy", tokens=900, rows=64
)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def design(rank: int = 8) -> Design:
    stage = Stage(algorithm=Sft(), update=Lora(rank=rank), optimiser=Optimiser(learning_rate=1e-4 / 3))
    return Design(architecture=Architecture(base="tiny-chat", kv_heads=1), stages=(stage,))


def file_record(name: str = "file-a", created_at: datetime = NOW) -> FileRecord:
    return FileRecord(
        id=name,
        filename="Käse.jsonl",
        purpose="fine-tune",
        bytes=2**40,
        created_at=created_at,
        kind=DataKind.CHAT,
        format="jsonl/messages",
        raw=digest(f"{name} raw"),
        rows=digest(f"{name} rows"),
        profile={"rows": 3, "tokens": {"mean": 1.5}, "notes": ["ok", None]},
    )


def job_record(name: str = "ftjob-a", created_at: datetime = NOW, **changes: object) -> JobRecord:
    job = JobRecord(
        id=name,
        created_at=created_at,
        started_at=created_at + timedelta(seconds=1),
        finished_at=None,
        state=JobState.RUNNING,
        model="tiny-chat",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        task=Task(goal="behaviour", grader=StringCheck(reference="{{item.answer}}")),
        search=Search(trials=4, deadline=NOW + timedelta(days=1)),
        constraints=Constraints(parameters=10**9),
        training_file="file-a",
        train=digest("train"),
        judge=JudgeSpec(
            kind=DataKind.CHAT, validation=digest("validation"), test=digest("test"), objective="perplexity"
        ),
        seed=2**40,
        suffix="geige",
        metadata={"team": "strings"},
        error={"code": "odd", "message": "…"},
        best_trial_id="trial-b",
        fine_tuned_model="ft:tiny-chat:geige",
        trained_tokens=2**40,
    )
    return job.model_copy(update=changes)


def add_job(c: Connection, name: str = "ftjob-a", created_at: datetime = NOW, **changes: object) -> JobRecord:
    """A running job, with its training file where that is not there yet."""
    job = job_record(name, created_at, **changes)
    if job.training_file not in {file.id for file in files.list_(c, None, 100)[0]}:
        files.insert(c, file_record(job.training_file))
    jobs.insert(c, job)
    return job


def add_trial(c: Connection, job_id: str = "ftjob-a", number: int = 0) -> TrialRecord:
    trial = trials.insert(c, job_id, number, design(number + 1), 0, "proposed", NOW)
    assert trial is not None
    return trial


def lease(c: Connection, owner: str = "worker-a", now: datetime = NOW, seconds: float = 30) -> TrialRecord:
    trial = leases.acquire(c, owner, now, seconds)
    assert trial is not None
    return trial


def leased_trial(c: Connection) -> TrialRecord:
    """The one trial of a running job, held by worker-a until half a minute from NOW."""
    add_job(c)
    add_trial(c)
    return lease(c)


def claim_of(trial: TrialRecord) -> Claim:
    assert trial.owner is not None
    return Claim(owner=trial.owner, fence=trial.fence)
