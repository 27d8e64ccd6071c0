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
        crew = [FakeWorker(replica.http, name=f"fake {n}") for n, replica in enumerate((left, right, left, right))]
        for member in crew:
            member.register()
        job_id = left.submit(search={"trials": 12, "confirmations": 0})
        with ThreadPoolExecutor(len(crew)) as pool:
            ended = list(pool.map(lambda member: member.work_until_ended(left.client, job_id), crew))

        assert ended == ["succeeded"] * 4
        worked = Counter(assignment.trial_id for member in crew for assignment in member.done)
        assert len(worked) == 12
        assert set(worked.values()) == {1}
        assert [trial.number for trial in right.client.trials(job_id)] == list(range(12))
        told = Counter(message.split(":")[0] for message in right.messages(job_id))
        assert (told["Finished"], told["No more trials"]) == (1, 1)
        assert left.client.best(job_id) == right.client.best(job_id)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_postgresql_store_that_is_not_up_to_date_is_not_touched(url: str, tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path, database_url=url))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(Conflict, match=r"is at revision none.*run `luthier db upgrade`"):
        asyncio.run(start())
