"""Questions and their answers in the store, the same on SQLite and PostgreSQL."""

import pytest

from luthier.errors import LeaseLost
from luthier.store import Connection, generations, jobs, leases, trials, workers
from luthier.store.database import Database
from luthier.trial import JobState
from luthier.worker_protocol import (
    Answered,
    Claim,
    Device,
    Generation,
    GenerationState,
    Hello,
    Question,
    Said,
    Spoken,
    Weights,
)
from tests.integration.store_samples import NOW, add_job, after, design

QUESTION = Question(model="tiny-chat", weights=Weights(), prompt="Once\0upon")
LEASE = 30.0


def add_worker(c: Connection, name: str = "one") -> str:
    hello = Hello(name=name, device=Device(kind="cpu", name="pretended", memory_bytes=2**30), pid=1)
    return workers.register(c, hello, NOW).id


def ask(c: Connection, seconds: float = 0.0) -> str:
    return generations.ask(c, "cmpl", QUESTION, after(seconds), after(seconds + 60))


def taken(c: Connection, worker: str, *, warm: bool = False, at: float = 1.0) -> Generation:
    generation = generations.acquire(c, worker, "tiny-chat" if warm else None, after(at), LEASE)
    assert generation is not None
    return generation


def claim(generation: Generation) -> dict[str, str | int]:
    return Claim(owner=generation.owner, fence=generation.fence).model_dump()


def test_pieces_are_heard_once_and_in_their_order_and_then_the_end(database: Database) -> None:
    with database.begin() as c:
        worker, generation_id = add_worker(c), ask(c)
        assert generations.waiting(c)
        generation = taken(c, worker)
        assert (generation.id, generation.question) == (generation_id, QUESTION)
        assert not generations.waiting(c)
        assert generations.acquire(c, worker, None, after(1), LEASE) is None
        for position, text in ((1, "two"), (0, "one"), (1, "two again"), (0, "")):
            said = Said(**claim(generation), position=position, text=text)
            generations.say(c, generation_id, said, after(2), LEASE)
    with database.read() as c:
        assert generations.heard(c, generation_id, 0) == (GenerationState.RUNNING, ("one", "two"), None)
        assert generations.heard(c, generation_id, 1) == (GenerationState.RUNNING, ("two",), None)
    end = Spoken(**claim(generation), answer=Answered(finish_reason="length", prompt_tokens=3, completion_tokens=2))
    with database.begin() as c:
        for _ in range(2):  # sent again it changes nothing
            generations.end(c, generation_id, end)
        assert generations.heard(c, generation_id, 2) == (GenerationState.ENDED, (), end.answer)
        generations.drop(c, generation_id)
        assert generations.heard(c, generation_id, 0) is None
        with pytest.raises(LeaseLost, match="does not hold the lease"):
            generations.end(c, generation_id, end)


def test_a_worker_without_a_process_waits_for_one_that_has_one_but_not_for_ever(database: Database) -> None:
    with database.begin() as c:
        warm, cold = add_worker(c, "warm"), add_worker(c, "cold")
        first = ask(c)
        taken(c, warm)
        second = ask(c, 1)
        assert generations.acquire(c, cold, None, after(2), LEASE) is None
        assert taken(c, cold, at=12).id == second
        third = ask(c, 12)
        assert taken(c, warm, warm=True, at=12).id == third
        assert workers.get(c, warm).generates == "tiny-chat"
        generations.drop(c, first)
    with database.begin() as c:
        ask(c, 100)
        assert generations.acquire(c, cold, None, after(100), LEASE) is not None, "the other was not heard of for long"


def test_what_nobody_answers_or_waits_for_is_taken_back(database: Database) -> None:
    with database.begin() as c:
        worker, silent, half = add_worker(c), ask(c), ask(c, 0.5)
        quiet, talking = taken(c, worker), taken(c, worker, warm=True)
        generations.say(c, half, Said(**claim(talking), position=0, text="Well"), after(1), LEASE)
        generations.want(c, silent, after(500))
        generations.want(c, half, after(500))
        generations.expire(c, after(30))
        assert generations.heard(c, silent, 0) == (GenerationState.RUNNING, (), None)
        generations.expire(c, after(32))
        assert generations.heard(c, silent, 0) == (GenerationState.WAITING, (), None)
        with pytest.raises(LeaseLost):
            generations.say(c, silent, Said(**claim(quiet), position=0), after(33), LEASE)
        ended = generations.heard(c, half, 0)
        assert ended is not None
        assert ended.answer is not None
        assert ended.answer.refusal is not None
        assert ended.answer.refusal.code == "unreachable"
        for at in (40, 80):  # twice more, and that is enough
            taken(c, worker, at=at)
            generations.expire(c, after(at + 31))
        last = generations.heard(c, silent, 0)
        assert last is not None
        assert last.state is GenerationState.ENDED
        generations.expire(c, after(501))
        assert generations.heard(c, silent, 0) is None


def test_the_trials_of_a_paused_job_are_leased_to_nobody(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trials.insert(c, "ftjob-a", 0, design(), 1, "baseline", NOW)
        assert jobs.pause(c, "ftjob-a")
        assert not jobs.pause(c, "ftjob-a")
        assert leases.acquire(c, "worker-a", NOW, LEASE) is None
        assert jobs.resume(c, "ftjob-a")
        assert not jobs.resume(c, "ftjob-a")
        assert leases.acquire(c, "worker-a", NOW, LEASE) is not None
        assert jobs.move(c, "ftjob-a", JobState.CANCELLED, NOW)
        assert not jobs.pause(c, "ftjob-a")
