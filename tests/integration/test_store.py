"""What the store keeps, lists and deletes, the same on SQLite and PostgreSQL. Leases have their own file."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text

from luthier.errors import Conflict, NotFound
from luthier.models.base_model import BaseModelEntry, ModelFacts
from luthier.store import artifacts, events, files, jobs, leases, measurements, models, trials, workers
from luthier.store.database import Database
from luthier.task import Resplit
from luthier.trial import JOB_TRANSITIONS, JobState, Point, TrialState
from luthier.worker_protocol import Artifact, CheckpointSaved, Device, Finished, Hello
from tests.integration.store_samples import (
    METRICS,
    NOW,
    add_job,
    add_trial,
    after,
    claim_of,
    design,
    digest,
    file_record,
    job_record,
    lease,
)

UNKNOWN: list[Callable[[Connection], object]] = [
    lambda c: files.get(c, "nothing"),
    lambda c: files.delete(c, "nothing"),
    lambda c: files.list_(c, "nothing", 1),
    lambda c: jobs.get(c, "nothing"),
    lambda c: jobs.list_(c, "nothing", 1, {}),
    lambda c: jobs.set_result(c, "nothing", None, None, None),
    lambda c: trials.get(c, "nothing"),
    lambda c: events.list_(c, "ftjob-a", "nothing", 1),
    lambda c: models.get(c, "nothing"),
    lambda c: models.added_at(c, "nothing"),
    lambda c: models.remove(c, "nothing"),
    lambda c: workers.touch(c, "nothing", NOW),
    lambda c: artifacts.drop_checkpoint(c, "nothing"),
]


def test_what_is_not_there_is_reported_by_name(database: Database) -> None:
    with database.begin() as c:
        for ask in UNKNOWN:
            with pytest.raises(NotFound, match=r"\bnothing\b"):
                ask(c)


# Files


def test_a_file_comes_back_as_it_was_stored(database: Database) -> None:
    with database.begin() as c:
        files.insert(c, file_record())
    with database.read() as c:
        assert files.get(c, "file-a") == file_record()


def test_pages_go_from_new_to_old_and_meet_every_row_once(database: Database) -> None:
    stored = [file_record(f"file-{i}", after(i // 2)) for i in range(5)]  # two of each moment
    with database.begin() as c:
        for file in stored:
            files.insert(c, file)
    with database.read() as c:
        first, more = files.list_(c, None, 2)
        second, more_still = files.list_(c, first[-1].id, 2)
        third, and_more = files.list_(c, second[-1].id, 2)
        everything, beyond = files.list_(c, None, 5)
    assert everything == stored[::-1] == first + second + third
    assert (more, more_still, and_more, beyond) == (True, True, False, False)


@pytest.mark.parametrize("role", ["training_file", "validation_file"])
def test_a_file_can_be_deleted_once_every_job_that_uses_it_has_ended(database: Database, role: str) -> None:
    with database.begin() as c:
        for state in JobState:
            name = f"file-{state}"
            files.insert(c, file_record(name))
            add_job(c, f"ftjob-{state}", state=state, **{role: name})
            if state.terminal:
                files.delete(c, name)
                with pytest.raises(NotFound):
                    files.get(c, name)
            else:
                with pytest.raises(Conflict, match=name):
                    files.delete(c, name)
                assert files.get(c, name) == file_record(name)


@pytest.mark.parametrize("role", ["training_file", "validation_file"])
def test_a_job_needs_files_that_exist(database: Database, role: str) -> None:
    with database.begin() as c:
        files.insert(c, file_record("file-a"))
    with database.begin() as c, pytest.raises(NotFound, match="file-gone") as caught:
        jobs.insert(c, job_record(**{role: "file-gone"}))
    assert caught.value.param == role


def test_a_file_cannot_be_deleted_while_a_job_is_being_created_with_it(database: Database) -> None:
    with database.begin() as c:
        files.insert(c, file_record())

    def delete() -> None:
        with database.begin() as c:
            files.delete(c, "file-a")

    with ThreadPoolExecutor(1) as pool:
        with database.begin() as c:
            jobs.insert(c, job_record())
            deletion = pool.submit(delete)
            until_it_waits(c, deletion)
        with pytest.raises(Conflict):
            deletion.result()


def until_it_waits(c: Connection, other: Future[None]) -> None:
    """On PostgreSQL, return when `other` stands before a lock or has gone past it; SQLite has but one writer."""
    if c.dialect.name == "postgresql":
        while not other.done() and c.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")) == 0:
            threading.Event().wait(0.01)


# Jobs


def test_a_job_comes_back_as_it_was_stored(database: Database) -> None:
    with database.begin() as c:
        job = add_job(c, validation_file="file-a", finished_at=after(9))
        bare = add_job(c, "ftjob-b", started_at=None, model=None, method=None, suffix=None, error=None, metadata={})
    with database.read() as c:
        assert jobs.get(c, "ftjob-a") == job
        assert jobs.get(c, "ftjob-b") == bare


@pytest.mark.parametrize("state", JobState)
def test_a_job_moves_along_the_legal_transitions_only(database: Database, state: JobState) -> None:
    with database.begin() as c:
        for to in JobState:
            before = add_job(c, f"ftjob-{to}", state=state, started_at=None, error=None)
            legal = to in JOB_TRANSITIONS[state]
            assert jobs.move(c, before.id, to, after(5), {"code": "why"}) is legal
            changed = {
                "state": to,
                "started_at": after(5) if to is JobState.RUNNING else None,
                "finished_at": after(5) if to.terminal else None,
                "error": {"code": "why"},
            }
            assert jobs.get(c, before.id) == before.model_copy(update=changed if legal else {})


def test_moving_one_job_leaves_the_others_and_its_error_alone(database: Database) -> None:
    with database.begin() as c:
        moved, other = add_job(c, "ftjob-a"), add_job(c, "ftjob-b")
        assert jobs.move(c, "ftjob-a", JobState.SUCCEEDED, after(5))
        assert jobs.get(c, "ftjob-a").error == moved.error
        assert jobs.get(c, "ftjob-b") == other
        assert not jobs.move(c, "ftjob-unknown", JobState.FAILED, after(5))


def test_active_jobs_are_the_queued_and_running_ones_oldest_first(database: Database) -> None:
    with database.begin() as c:
        for age, state in enumerate(JobState):
            add_job(c, f"ftjob-{state}", after(-age), state=state)
        assert [job.id for job in jobs.active(c)] == ["ftjob-running", "ftjob-queued"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["ftjob-b", "ftjob-a"]),
        ({"team": "strings"}, ["ftjob-b", "ftjob-a"]),
        ({"team": "strings", 'a.b "c" \' $[0]': "ü%_"}, ["ftjob-b"]),
        ({"team": "string"}, []),
        ({"strings": "team"}, []),
        ({"team": "strings", "absent": ""}, []),
    ],
)
def test_jobs_are_listed_by_all_of_the_given_metadata(
    database: Database, wanted: dict[str, str], found: list[str]
) -> None:
    with database.begin() as c:
        add_job(c, "ftjob-a")
        add_job(c, "ftjob-b", after(1), metadata={"team": "strings", 'a.b "c" \' $[0]': "ü%_"})
        listed, more = jobs.list_(c, None, 10, wanted)
    assert [job.id for job in listed] == found
    assert not more


def test_pages_of_jobs_skip_those_with_other_metadata(database: Database) -> None:
    with database.begin() as c:
        for i in range(4):
            add_job(c, f"ftjob-{i}", metadata={"even": str(i % 2 == 0)})
        first, more = jobs.list_(c, None, 1, {"even": "True"})
        second, more_still = jobs.list_(c, first[0].id, 1, {"even": "True"})
    assert [job.id for job in first + second] == ["ftjob-2", "ftjob-0"]
    assert (more, more_still) == (True, False)


@pytest.mark.parametrize(
    ("tags", "schedule_id", "found"),
    [
        ((), None, ["ftjob-2", "ftjob-1", "ftjob-0"]),
        (("süß",), None, ["ftjob-2", "ftjob-1"]),
        (("a,b", "süß"), None, ["ftjob-2"]),
        (("sü",), None, []),
        ((), "sched-a", ["ftjob-1", "ftjob-0"]),
        (("süß",), "sched-a", ["ftjob-1"]),
        ((), "sched-gone", []),
    ],
)
def test_jobs_are_listed_by_all_of_the_given_tags_and_by_their_schedule_page_by_page(
    database: Database, tags: tuple[str, ...], schedule_id: str | None, found: list[str]
) -> None:
    with database.begin() as c:
        add_job(c, "ftjob-0", schedule_id="sched-a")
        add_job(c, "ftjob-1", after(1), schedule_id="sched-a", tags=("süß",))
        add_job(c, "ftjob-2", after(2), tags=("süß", "a,b"))
        assert jobs.tags(c) == ["a,b", "süß"]
        listed, last, more = list[str](), None, True
        while more:
            page, more = jobs.list_(c, last, 1, {}, tags=tags, schedule_id=schedule_id)
            listed += [job.id for job in page]
            last = page[-1].id if page else None
    assert listed == found


def test_a_job_keeps_its_result(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        jobs.set_result(c, "ftjob-a", "trial-x", "ft:tiny-chat:x", 7)
        job = jobs.get(c, "ftjob-a")
    assert (job.best_trial_id, job.fine_tuned_model, job.trained_tokens) == ("trial-x", "ft:tiny-chat:x", 7)


# Trials


def test_a_new_trial_waits_and_comes_back_as_it_was_stored(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial = add_trial(c, number=3)
        assert trials.get(c, trial.id) == trial
    assert (trial.number, trial.state, trial.fence, trial.attempts) == (3, TrialState.WAITING, 0, 0)
    assert (trial.design, trial.digest) == (design(4), design(4).digest())


def test_a_job_has_each_number_and_each_design_with_a_seed_once(database: Database) -> None:
    with database.begin() as c:
        add_job(c, "ftjob-a")
        add_job(c, "ftjob-b")

        def add(job_id: str, number: int, rank: int, seed: int) -> bool:
            return trials.insert(c, job_id, number, design(rank), seed, "proposed", NOW) is not None

        assert add("ftjob-a", 0, rank=8, seed=0)
        assert not add("ftjob-a", 0, rank=4, seed=0)
        assert not add("ftjob-a", 1, rank=8, seed=0)
        assert add("ftjob-a", 1, rank=8, seed=1)
        assert add("ftjob-b", 0, rank=8, seed=0)
        assert [(t.number, t.seed) for t in trials.of_job(c, "ftjob-a")] == [(0, 0), (1, 1)]


def test_threads_that_propose_the_same_number_get_it_once(database: Database) -> None:
    with database.begin() as c:
        add_job(c)

    def propose(rank: int) -> bool:
        with database.begin() as c:
            return trials.insert(c, "ftjob-a", 7, design(rank), 0, "proposed", NOW) is not None

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(propose, range(1, 9))) == [False] * 7 + [True]


def test_cancelling_takes_the_waiting_trials_of_that_job_only(database: Database) -> None:
    with database.begin() as c:
        add_job(c, "ftjob-a")
        add_job(c, "ftjob-b", after(1))
        held, waiting, other = add_trial(c, "ftjob-a", 0), add_trial(c, "ftjob-a", 1), add_trial(c, "ftjob-b", 0)
        held = lease(c)
        trials.cancel_waiting(c, "ftjob-a", after(5))
        cancelled = waiting.model_copy(update={"state": TrialState.CANCELLED, "finished_at": after(5)})
        assert trials.of_job(c, "ftjob-a") == [held, cancelled]
        assert trials.get(c, other.id) == other


# Curves


def point(step: int, value: float, name: str = "train_loss", stage: int = 0) -> Point:
    return Point(stage=stage, step=step, name=name, value=value, at=after(step))


def test_points_sent_again_change_nothing_and_later_values_win(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial = add_trial(c)
        measurements.add(c, trial.id, [point(1, 3.0), point(2, 2.0)])
        measurements.add(c, trial.id, [point(1, 3.0), point(2, 2.0)])
        assert measurements.of_trial(c, trial.id) == [point(1, 3.0), point(2, 2.0)]
        measurements.add(c, trial.id, [point(2, 9.0), point(3, 1.0), point(2, 1.9)])
        assert measurements.of_trial(c, trial.id) == [point(1, 3.0), point(2, 1.9), point(3, 1.0)]


def test_a_curve_is_read_by_stage_and_step_and_by_name(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial, other = add_trial(c, number=0), add_trial(c, number=1)
        sent = [point(10, 1.0), point(9, 2.0), point(1, 4.0, stage=1), point(5, 0.1, name="rate")]
        measurements.add(c, trial.id, sent)
        measurements.add(c, other.id, [point(1, 8.0)])
        measurements.add(c, other.id, [])
        assert measurements.of_trial(c, trial.id, "train_loss") == [sent[1], sent[0], sent[2]]
        assert measurements.of_trial(c, trial.id) == [sent[3], sent[1], sent[0], sent[2]]
        assert measurements.of_trial(c, trial.id, "absent") == []


def test_of_each_stage_the_latest_scores_on_held_out_rows_are_found_by_job(database: Database) -> None:
    with database.begin() as c:
        add_job(c, "ftjob-a")
        add_job(c, "ftjob-b", after(1))
        trial, other = add_trial(c, "ftjob-a", 0), add_trial(c, "ftjob-b", 0)
        scores = [point(9, 2.0, "valid_loss"), point(27, 1.5, "valid_loss"), point(27, 0.7, "valid_accuracy")]
        measurements.add(c, trial.id, [*scores, point(4, 1.2, "valid_loss", stage=1), point(30, 3.0)])
        measurements.add(c, other.id, [point(9, 8.0, "valid_loss")])
        expected = {0: {"valid_loss": 1.5, "valid_accuracy": 0.7}, 1: {"valid_loss": 1.2}}
        assert measurements.stage_scores(c, "ftjob-a") == {trial.id: expected}


# Events


def test_events_of_one_moment_are_listed_in_reverse_order_of_writing(database: Database) -> None:
    with database.begin() as c:
        add_job(c, "ftjob-a")
        add_job(c, "ftjob-b")
        written = [events.add(c, "ftjob-a", "info", "message", f"step {i}", NOW) for i in range(12)]
        written += [events.add(c, "ftjob-a", "warn", "metrics", "last", NOW, {"loss": 0.5})]
        events.add(c, "ftjob-b", "error", "message", "another job's", NOW)
        first, more = events.list_(c, "ftjob-a", None, 12)
        second, more_still = events.list_(c, "ftjob-a", first[-1].id, 12)
    assert first + second == written[::-1]
    assert (more, more_still) == (True, False)


# Models and workers


def entry(name: str, source: str = "/models/tiny") -> BaseModelEntry:
    facts = ModelFacts(
        architecture="LlamaForCausalLM",
        family="decoder",
        parameters=2**40,
        hidden_size=64,
        layers=4,
        heads=4,
        kv_heads=2,
        vocab_size=4096,
        context=2048,
        chat_template=True,
    )
    return BaseModelEntry(name=name, source=source, facts=facts)


def test_base_models_are_listed_by_name_replaced_and_removed(database: Database) -> None:
    with database.begin() as c:
        models.add(c, entry("tiny-b"), NOW)
        models.add(c, entry("tiny-a"), NOW)
        models.add(c, entry("tiny-b", source="/models/new"), after(1))
        assert models.list_(c) == [entry("tiny-a"), entry("tiny-b", source="/models/new")]
        assert models.get(c, "tiny-a") == entry("tiny-a")
        assert (models.added_at(c, "tiny-a"), models.added_at(c, "tiny-b")) == (NOW, after(1))
        models.remove(c, "tiny-a")
        assert [model.name for model in models.list_(c)] == ["tiny-b"]


def hello(name: str, pid: int = 1) -> Hello:
    return Hello(name=name, pid=pid, device=Device(kind="cpu", name="x86", memory_bytes=2**36))


def test_a_worker_that_comes_back_under_its_name_keeps_its_id(database: Database) -> None:
    with database.begin() as c:
        first = workers.register(c, hello("b"), NOW)
        other = workers.register(c, hello("a"), NOW)
        again = workers.register(c, hello("b", pid=2), after(60))
        assert again == first.model_copy(update={"pid": 2, "seen_at": after(60)})
        assert workers.list_(c) == [other, again]


def test_live_workers_are_those_heard_of_lately(database: Database) -> None:
    with database.begin() as c:
        silent, spoken = workers.register(c, hello("a"), NOW), workers.register(c, hello("b"), NOW)
        assert workers.touch(c, spoken.id, after(20)).seen_at == after(20)
        assert [w.id for w in workers.live(c, after(30), 30)] == [silent.id, spoken.id]
        assert [w.id for w in workers.live(c, after(31), 30)] == [spoken.id]


# Blobs that rows refer to


def artifact(kind: str, *names: str) -> Artifact:
    return Artifact.model_validate({"kind": kind, "files": {name: digest(name) for name in names}, "bytes": 2**40})


def test_artifacts_are_replaced_whole(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial, other = add_trial(c, number=0), add_trial(c, number=1)
        artifacts.replace(c, other.id, [artifact("adapter", "other")])
        artifacts.replace(c, trial.id, [artifact("merged", "weights", "config"), artifact("adapter")])
        assert artifacts.of_trial(c, trial.id) == [artifact("adapter"), artifact("merged", "config", "weights")]
        artifacts.replace(c, trial.id, [artifact("adapter", "weights")])
        assert artifacts.of_trial(c, trial.id) == [artifact("adapter", "weights")]
        assert artifacts.drop(c, trial.id) == {digest("weights")}
        assert artifacts.of_trial(c, trial.id) == []
        assert artifacts.of_trial(c, other.id) == [artifact("adapter", "other")]


def test_a_blob_is_kept_as_long_as_a_row_refers_to_it(database: Database) -> None:
    resplits = tuple(Resplit(train=digest(f"train {k}"), validation=digest(f"validation {k}")) for k in (2, 3))
    split = {digest("train"), digest("validation"), digest("test")}
    split |= {part for resplit in resplits for part in (resplit.train, resplit.validation)}
    upload = {digest("file-b raw"), digest("file-b rows")}
    export = {digest("weights"), digest("shared")}
    checkpoint = {digest("manifest"), digest("optimiser"), digest("shared")}
    unknown = {digest(str(i)) for i in range(2000)}
    with database.begin() as c:
        files.insert(c, file_record("file-b"))
        add_job(c, resplits=resplits)
        trial = add_trial(c)
        claim = claim_of(lease(c))
        saved = CheckpointSaved(
            **dict(claim), manifest=digest("manifest"), blobs=(digest("optimiser"), digest("shared")), stage=0, step=9
        )
        leases.save_checkpoint(c, trial.id, saved)
        done = Finished(
            **dict(claim),
            outcome="complete",
            device_seconds=1,
            metrics=METRICS,
            artifacts=(artifact("adapter", "weights", "shared"),),
        )
        leases.finish(c, trial.id, done, NOW)
        everything = split | upload | export | checkpoint | unknown

        assert artifacts.unreferenced(c, everything) == unknown
        assert artifacts.unreferenced(c, []) == set()
        files.delete(c, "file-b")
        assert artifacts.unreferenced(c, everything) == unknown | upload
        assert artifacts.drop(c, trial.id) == export
        assert artifacts.unreferenced(c, everything) == unknown | upload | {digest("weights")}
        assert artifacts.drop_checkpoint(c, trial.id) == checkpoint
        assert artifacts.unreferenced(c, everything) == everything - split
        assert trials.get(c, trial.id).checkpoint is None


def test_a_trial_that_may_resume_keeps_its_checkpoint(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial = add_trial(c)
        with pytest.raises(Conflict, match="waiting"):
            artifacts.drop_checkpoint(c, trial.id)
