"""Questions to models, and their answers piece by piece. A row exists while a client waits for the answer.

Workers lease questions as they lease trials: their messages are guarded by `(owner, fence)`. LeaseLost means that no
client waits any more, or that another worker has the lease.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, exists, not_, or_, select

from luthier.errors import LeaseLost, Unreachable
from luthier.store import tables
from luthier.store.database import insert_into
from luthier.store.rows import new_id
from luthier.worker_protocol import Answered, Claim, Generation, GenerationState, Question, Refusal, Said, Spoken

MAX_ATTEMPTS: Final = 3
PATIENCE: Final = timedelta(seconds=10)  # a question waits so long for a worker with a loaded model

_generations = tables.generations
_g = tables.generations.c
_pieces = tables.generation_pieces


class Heard(NamedTuple):
    """The state of a question. Once `answer` is set, all pieces are there."""

    state: GenerationState
    pieces: tuple[str, ...]
    answer: Answered | None


def ask(c: Connection, prefix: str, question: Question, now: datetime, wanted_until: datetime) -> str:
    """Insert a question. Return its id."""
    generation_id = new_id(prefix)
    row = {"id": generation_id, "created_at": now, "question": question, "state": GenerationState.WAITING}
    c.execute(_generations.insert().values(**row, fence=0, wanted_until=wanted_until, said=0))
    return generation_id


def want(c: Connection, generation_id: str, until: datetime) -> None:
    """Extend how long the question is kept: a client still waits for the answer."""
    c.execute(_generations.update().where(_g.id == generation_id).values(wanted_until=until))


def drop(c: Connection, generation_id: str) -> None:
    """Delete a question: no client waits any more. Its worker gets LeaseLost."""
    c.execute(_generations.delete().where(_g.id == generation_id))


def waiting(c: Connection) -> bool:
    """Return whether any question waits for a worker."""
    return bool(c.scalar(select(exists().where(_g.state == GenerationState.WAITING))))


def heard(c: Connection, generation_id: str, known: int) -> Heard | None:
    """Return the state, with the pieces after the first `known`; None for a dropped question."""
    row = c.execute(select(_g.state, _g.answer).where(_g.id == generation_id)).one_or_none()
    if row is None:
        return None
    query = select(_pieces.c.text).where(_pieces.c.generation_id == generation_id, _pieces.c.position >= known)
    return Heard(row.state, tuple(c.scalars(query.order_by(_pieces.c.position))), row.answer)


def acquire(c: Connection, owner: str, generates: str | None, now: datetime, lease_seconds: float) -> Generation | None:
    """Lease the question that has waited longest. Return None where there is none.

    While another live worker has a generation process, a worker without one gets only questions that have waited for
    `PATIENCE`: starting a process takes seconds, and memory for the model.
    """
    workers = tables.workers
    since = now - timedelta(seconds=lease_seconds)
    c.execute(workers.update().where(workers.c.id == owner).values(generates=generates))
    free = select(_g.id).where(_g.state == GenerationState.WAITING, _g.wanted_until >= now)
    if generates is None:
        other = exists().where(workers.c.id != owner, workers.c.generates.is_not(None), workers.c.seen_at >= since)
        free = free.where(or_(not_(other), _g.created_at <= now - PATIENCE))
    first = free.order_by(_g.created_at, _g.id).limit(1).with_for_update(skip_locked=True).scalar_subquery()
    lease = {
        "state": GenerationState.RUNNING,
        "owner": owner,
        "fence": _g.fence + 1,
        "expires_at": now + timedelta(seconds=lease_seconds),
    }
    query = _generations.update().where(_g.id == first).values(lease).returning(_g.id, _g.fence, _g.question)
    row = c.execute(query).one_or_none()
    if row is None:
        return None
    c.execute(workers.update().where(workers.c.id == owner).values(generates=row.question.model))
    return Generation(id=row.id, owner=owner, fence=row.fence, question=row.question)


def say(c: Connection, generation_id: str, said: Said, now: datetime, lease_seconds: float) -> None:
    """Renew the lease and add a piece, if there is one. Repeating a piece changes nothing. Raises LeaseLost."""
    changes: dict[str, Any] = {"expires_at": now + timedelta(seconds=lease_seconds)}
    if said.text:
        changes["said"] = said.position + 1
    if c.execute(_generations.update().where(*_held(generation_id, said)).values(changes)).rowcount == 0:
        raise _lost(generation_id, said)
    if said.text:
        piece = {"generation_id": generation_id, "position": said.position, "text": said.text}
        c.execute(insert_into(c, _pieces).values(piece).on_conflict_do_nothing())


def end(c: Connection, generation_id: str, spoken: Spoken) -> None:
    """End the answer, or put the question back. Repeating the same end changes nothing. Raises LeaseLost."""
    held = _held(generation_id, spoken)
    if spoken.answer is None:
        _give_up(c, *held)
        return
    ended = {"state": GenerationState.ENDED, "answer": spoken.answer}
    if c.execute(_generations.update().where(*held).values(ended)).rowcount == 0:
        same = (_g.id == generation_id, _g.owner == spoken.owner, _g.fence == spoken.fence)
        if not c.scalar(select(exists().where(*same, _g.state == GenerationState.ENDED))):
            raise _lost(generation_id, spoken)


def expire(c: Connection, now: datetime) -> None:
    """Take back expired leases, and delete questions whose clients are gone."""
    _give_up(c, _g.expires_at < now)
    c.execute(_generations.delete().where(_g.wanted_until < now))


def release(c: Connection, owner: str) -> None:
    """Take back the leases that a worker held before it restarted."""
    _give_up(c, _g.owner == owner)


def _give_up(c: Connection, *whose: ColumnElement[bool]) -> None:
    """Put the question back if nothing was answered yet. No other worker can continue half an answer: it ends."""
    running = (_g.state == GenerationState.RUNNING, *whose)
    back = {"state": GenerationState.WAITING, "owner": None, "expires_at": None}
    c.execute(_generations.update().where(*running, _g.said == 0, _g.fence < MAX_ATTEMPTS).values(back))
    lost = Unreachable("the worker was lost while it answered; ask again")
    answer = Answered(refusal=Refusal(code=lost.code, message=lost.message))
    c.execute(_generations.update().where(*running).values(state=GenerationState.ENDED, answer=answer))


def _held(generation_id: str, claim: Claim) -> tuple[ColumnElement[bool], ...]:
    mine = (_g.owner == claim.owner, _g.fence == claim.fence)
    return _g.id == generation_id, _g.state == GenerationState.RUNNING, *mine


def _lost(generation_id: str, claim: Claim) -> LeaseLost:
    return LeaseLost(f"{claim.owner} does not hold the lease of {generation_id} under fence {claim.fence}")
