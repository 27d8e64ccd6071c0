"""Several replicas of the service on one PostgreSQL: what one does, the others see, and nothing is done twice."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from luthier.errors import Conflict
from luthier.settings import Settings
from luthier.store.database import Database
from service.app import create_app
from tests.integration.service_harness import FakeWorker, serving


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_two_replicas_share_the_work_and_end_each_job_once(database: Database, tmp_path: Path) -> None:
    url = database.url.render_as_string(hide_password=False)
    with serving(tmp_path, database_url=url) as left, serving(tmp_path, database_url=url) as right:
        left.add_model()
        workers = [FakeWorker(replica.http, name=f"fake {n}") for n, replica in enumerate((left, right, left, right))]
        for each in workers:
            each.register()
        job_id = left.submit(search={"trials": 12})
        with ThreadPoolExecutor(len(workers)) as pool:
            ended = list(pool.map(lambda each: each.work_until_ended(left.client, job_id), workers))

        assert ended == ["succeeded"] * 4
        worked = Counter(assignment.trial_id for each in workers for assignment in each.done)
        assert set(worked.values()) == {1}, "what is done is done once"
        trials = right.client.trials(job_id)
        assert [trial.number for trial in trials] == list(range(12 + 8))
        states = Counter(trial.state.value for trial in trials)
        assert states["complete"] == len(worked) >= 2 + 3 + 8
        assert states["complete"] + states["pruned"] == 20
        assert Counter(trial.confirms for trial in trials if trial.confirms is not None)[1] == 2
        assert {trial.attempts for trial in trials} == {0, 1}, "a pause costs none"
        messages = right.messages(job_id)
        told = Counter(message.split(":")[0] for message in messages)
        assert (told["Finished"], told["No more trials"]) == (1, 1)
        steps = Counter(message for message in messages if "is promoted" in message or "repeats the design" in message)
        assert steps
        assert set(steps.values()) == {1}, "what is promoted or confirmed is so once"
        assert left.client.best(job_id) == right.client.best(job_id)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_postgresql_store_that_is_not_up_to_date_is_not_touched(url: str, tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path, database_url=url))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            pass

    # A thread of its own: in this one, Playwright's event loop may be running for other tests of the process.
    with ThreadPoolExecutor(1) as pool, pytest.raises(Conflict, match=r"is at revision none.*`luthier db upgrade`"):
        pool.submit(lambda: asyncio.run(start())).result()
