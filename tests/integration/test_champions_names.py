"""`alias/NAME` in the place of a model's name, in the hands of OpenAI's unmodified client."""

import openai
import pytest
from openai import OpenAI

from luthier.errors import Conflict
from tests.integration.service_harness import FakeWorker, Service
from tests.integration.test_chat_service import HELLO, Speaker, beside

pytest_plugins = ("tests.integration.service_fixtures",)

SMALL = {"trials": 2, "finalists": 1, "confirmations": 0}


def test_an_alias_is_asked_listed_and_keeps_its_model(service: Service, worker: FakeWorker) -> None:
    made = []
    for _ in range(2):
        job_id = service.submit(search=SMALL)
        worker.work_until_ended(service.client, job_id)
        made.append(service.client.job(job_id).fine_tuned_model or "")
        service.client.set_alias("support", made[-1])
    first, second = made
    speaker = Speaker(worker)
    with OpenAI(base_url=f"{service.url}/v1", api_key="none is needed", max_retries=0) as client:
        for model in (second, first):
            thread = beside(speaker.speak)
            answer = client.chat.completions.create(model="alias/support", messages=HELLO)
            thread.join()
            assert answer.choices[0].message.content == "Good day!"
            weights = speaker.asked[-1].weights.artifact
            assert weights is not None
            assert weights in service.client.best(service.client.model(model).job or "").artifacts
            assert "alias/support" in {listed.id for listed in client.models.list()}
            assert client.models.retrieve("alias/support").id == "alias/support"
            assert service.client.model("alias/support").job == service.client.model(model).job
            with pytest.raises(openai.ConflictError, match="alias/support"):
                client.models.delete(model)
            if model == second:
                service.client.roll_back("support")

        service.client.set_alias("support", second)
        assert client.models.delete(first).deleted
        with pytest.raises(Conflict, match="deleted"):
            service.client.roll_back("support")
        service.client.delete_alias("support")
        with pytest.raises(openai.NotFoundError, match="alias 'support'"):
            client.chat.completions.create(model="alias/support", messages=HELLO)
