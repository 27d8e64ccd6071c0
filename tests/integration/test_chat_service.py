"""/v1/chat/completions and /v1/completions in the hands of OpenAI's unmodified client; a pretended worker answers."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from luthier.errors import NotFound
from luthier.store import artifacts
from luthier.worker_protocol import Answered, Generation, Offer, Question, Refusal, Said, Spoken
from tests.integration.service_harness import TINY_CHAT, FakeWorker, Service, serving, sums, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "openai-client.md"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
Pieces = tuple[str, ...]


@dataclass
class Speaker:
    """A worker that answers questions with pieces that were made up before."""

    worker: FakeWorker
    pieces: Pieces = ("Good", " day", "!")
    end: Answered = field(default_factory=lambda: Answered(prompt_tokens=5, completion_tokens=3))
    asked: list[Question] = field(default_factory=list)

    def offer(self, generates: str | None = None) -> Generation | None:
        answer = self.worker.post(f"/v1/workers/{self.worker.id}/generation", Offer(generates=generates))
        return None if answer.status_code == 204 else Generation.model_validate(answer.json())

    def take(self, generates: str | None = None) -> Generation:
        generation = self.offer(generates)
        assert generation is not None, "nobody asked"
        self.asked.append(generation.question)
        return generation

    def say(self, generation: Generation, position: int, text: str) -> httpx.Response:
        said = Said(owner=generation.owner, fence=generation.fence, position=position, text=text)
        return self.worker.http.post(f"/v1/generations/{generation.id}/pieces", json=said.model_dump(mode="json"))

    def finish(self, generation: Generation, answer: Answered | None) -> httpx.Response:
        spoken = Spoken(owner=generation.owner, fence=generation.fence, answer=answer)
        return self.worker.http.post(f"/v1/generations/{generation.id}/end", json=spoken.model_dump(mode="json"))

    def speak(self) -> None:
        generation = self.take()
        for position, piece in enumerate(self.pieces):
            assert self.say(generation, position, piece).status_code == 204
        assert self.finish(generation, self.end).status_code == 204


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all tests, with one base model, `tiny-chat`."""
    with serving(tmp_path_factory.mktemp("chat") / "home") as service:
        service.add_model()
        yield service


@pytest.fixture
def worker(service: Service) -> FakeWorker:
    worker = FakeWorker(service.http)
    worker.register()
    return worker


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="none is needed", max_retries=0) as client:
        yield client


@pytest.fixture
def speaker(worker: FakeWorker) -> Speaker:
    return Speaker(worker)


def beside(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_chat_is_answered_whole(client: OpenAI, speaker: Speaker) -> None:
    thread = beside(speaker.speak)
    answer = client.chat.completions.create(
        model="tiny-chat",
        messages=[{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}, *HELLO],
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop="\n",
        max_tokens=30,
        n=1,
        presence_penalty=0,
        user="me",
    )
    thread.join()
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "tiny-chat")
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Good day!")
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 3, 8)
    [question] = speaker.asked
    assert question.messages == ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"})
    assert (question.temperature, question.top_p, question.seed, question.stop) == (0.5, 0.9, 7, ("\n",))
    assert question.max_tokens == 30
    assert question.weights.base is not None
    assert question.weights.base.name == "tiny-chat"


def test_a_chat_is_streamed_in_openais_chunks(client: OpenAI, speaker: Speaker) -> None:
    speaker.end = Answered(finish_reason="length", prompt_tokens=5, completion_tokens=3)
    thread = beside(speaker.speak)
    chunks = list(
        client.chat.completions.create(
            model="tiny-chat",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
            max_completion_tokens=3,
        )
    )
    thread.join()
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    *spoken, last, counted = chunks
    assert [chunk.choices[0].delta.content for chunk in spoken] == ["", "Good", " day", "!"]
    assert spoken[0].choices[0].delta.role == "assistant"
    assert (last.choices[0].delta.content, last.choices[0].finish_reason) == (None, "length")
    assert counted.choices == []
    assert counted.usage is not None
    assert counted.usage.total_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_text_goes_on_whole_and_streamed(client: OpenAI, speaker: Speaker) -> None:
    thread = beside(lambda: [speaker.speak() for _ in range(2)])
    whole = client.completions.create(model="tiny-chat", prompt=["Once"])
    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == (
        "text_completion",
        "Good day!",
        "stop",
    )
    chunks = list(client.completions.create(model="tiny-chat", prompt="Once", stream=True, max_tokens=9))
    thread.join()
    assert [chunk.choices[0].text for chunk in chunks] == ["Good", " day", "!", ""]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert [(question.prompt, question.max_tokens) for question in speaker.asked] == [("Once", 16), ("Once", 9)]


@pytest.mark.parametrize(
    ("body", "param", "named"),
    [
        ({"n": 2}, "n", r"\b1\b"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", r"\b0\b"),
        ({"tools": [{"type": "function"}]}, "tools", "tools"),
        ({"logprobs": True}, "logprobs", "False"),
        ({"response_format": {"type": "json_object"}}, "response_format", "'text'"),
        ({"temperature": 3}, "temperature", r"\b2\b"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", r"\b1\b"),
        ({"messages": []}, "messages", "list"),
        ({"messages": [{"role": "poet", "content": "O"}]}, "messages", "system, developer, user"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "Hi"}]}, "messages", "assistant"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "text"),
        ({"tempo": 3}, "tempo", "tempo"),
    ],
    ids=str,
)
def test_what_is_not_answered_is_refused_by_name(
    body: dict[str, Any], param: str, named: str, client: OpenAI, service: Service
) -> None:
    with pytest.raises(openai.BadRequestError, match=named) as refused:
        client.post(
            "/chat/completions", body={"model": "tiny-chat", "messages": HELLO, **body}, cast_to=openai.types.Model
        )
    assert refused.value.param == param


def test_several_prompts_at_once_are_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny-chat", prompt=["one", "two"])
    assert refused.value.param == "prompt"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-9'") as refused:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert refused.value.param == "model"


def test_without_workers_there_is_no_answer_and_no_waiting(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service:
        service.add_model()
        answer = service.http.post("/v1/chat/completions", json={"model": "tiny-chat", "messages": HELLO})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unreachable"


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_worker_finds_wrong_before_its_first_word_has_its_status(
    stream: bool, client: OpenAI, speaker: Speaker
) -> None:
    speaker.pieces = ()
    speaker.end = Answered(refusal=Refusal(code="user_error", message="too long", param="messages"))
    thread = beside(speaker.speak)
    with pytest.raises(openai.BadRequestError, match="too long") as refused:
        client.chat.completions.create(model="tiny-chat", messages=HELLO, stream=stream)
    thread.join()
    assert refused.value.param == "messages"


def test_what_goes_wrong_later_ends_the_stream_with_the_error(client: OpenAI, speaker: Speaker) -> None:
    speaker.end = Answered(refusal=Refusal(code="trial_failed", message="its process ended with code -9"))
    thread = beside(speaker.speak)
    stream = client.chat.completions.create(model="tiny-chat", messages=HELLO, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(4)] == ["", "Good", " day", "!"]
    thread.join()
    with pytest.raises(openai.APIError, match="code -9"):
        next(stream)


def test_whoever_hangs_up_ends_the_answer(client: OpenAI, service: Service, speaker: Speaker) -> None:
    taken: list[Generation] = []

    def begin() -> None:
        taken.append(speaker.take())
        speaker.say(taken[0], 0, "Well")

    thread = beside(begin)
    stream = client.chat.completions.create(model="tiny-chat", messages=HELLO, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Well"]
    thread.join()
    stream.close()
    wait_until(lambda: speaker.say(taken[0], 1, ", then").status_code == 409)
    assert speaker.finish(taken[0], Answered()).status_code == 409


def test_whoever_hangs_up_before_the_first_word_ends_the_answer_too(service: Service, speaker: Speaker) -> None:
    def ask() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{service.url}/v1/chat/completions", json={"model": "tiny-chat", "messages": HELLO}, timeout=1.0
            )

    thread = beside(ask)
    generation = speaker.take()
    thread.join()
    wait_until(lambda: speaker.say(generation, 0, "").status_code == 409)


def test_an_encoder_is_refused_with_the_reason(client: OpenAI, service: Service, worker: FakeWorker) -> None:
    service.client.add_model("tiny-encoder", str(TINY_CHAT.with_name("tiny-encoder")))
    with pytest.raises(openai.BadRequestError, match=r"tiny-encoder .*encoder") as refused:
        client.chat.completions.create(model="tiny-encoder", messages=HELLO)
    assert refused.value.param == "model"


def test_a_worker_that_has_a_model_in_memory_goes_first(client: OpenAI, service: Service, speaker: Speaker) -> None:
    cold = Speaker(FakeWorker(service.http, name="cold"))
    cold.worker.register()
    thread = beside(speaker.speak)
    client.chat.completions.create(model="tiny-chat", messages=HELLO)
    thread.join()
    [warm] = [worker for worker in service.client.workers() if worker.generates]
    assert (warm.name, warm.generates) == ("fake", "tiny-chat")

    got: list[Any] = []
    asking = beside(lambda: got.append(client.chat.completions.create(model="tiny-chat", messages=HELLO)))
    assert cold.offer() is None, "it would need seconds to start a process"
    generation = speaker.take(generates="tiny-chat")
    speaker.say(generation, 0, "Hi")
    speaker.finish(generation, speaker.end)
    asking.join()
    assert got[0].choices[0].message.content == "Hi"
    assert speaker.offer() is None, "and its process has ended"
    assert not any(worker.generates for worker in service.client.workers())


def test_a_question_that_is_given_back_is_answered_by_another(client: OpenAI, speaker: Speaker) -> None:
    got: list[Any] = []
    asking = beside(lambda: got.append(client.chat.completions.create(model="tiny-chat", messages=HELLO)))
    first = speaker.take()
    assert speaker.finish(first, None).status_code == 204
    speaker.speak()
    asking.join()
    assert got[0].choices[0].message.content == "Good day!"
    assert speaker.say(first, 0, "late").status_code == 409


def test_of_a_worker_that_starts_anew_a_silent_answer_goes_on_elsewhere_and_half_an_answer_ends(
    client: OpenAI, speaker: Speaker
) -> None:
    asking = beside(lambda: client.chat.completions.create(model="tiny-chat", messages=HELLO))
    speaker.take()
    speaker.worker.register()
    speaker.speak()
    asking.join()

    failed: list[openai.APIStatusError] = []

    def ask() -> None:
        try:
            client.chat.completions.create(model="tiny-chat", messages=HELLO)
        except openai.APIStatusError as error:
            failed.append(error)

    asking = beside(ask)
    generation = speaker.take()
    speaker.say(generation, 0, "Half")
    speaker.worker.register()
    asking.join()
    assert (failed[0].status_code, failed[0].code) == (503, "unreachable")
    assert "worker was lost" in failed[0].message


def test_a_job_s_result_and_each_kept_trial_answer_under_their_names(
    client: OpenAI, service: Service, speaker: Speaker
) -> None:
    job_id = service.submit(search={"trials": 3, "confirmations": 0})
    speaker.worker.work_until_ended(service.client, job_id)
    job, winner = service.client.job(job_id), service.client.best(job_id)
    assert job.fine_tuned_model is not None
    kept = [each for each in service.client.checkpoints(job_id) if each.luthier.usable]
    assert len(kept) == 2
    for name in (each.fine_tuned_model_checkpoint for each in kept):
        thread = beside(speaker.speak)
        client.chat.completions.create(model=name, messages=HELLO)
        thread.join()
    loaded = [question.weights for question in speaker.asked]
    assert all(weights.base is None and weights.artifact is not None for weights in loaded)
    by_name = {question.model: question.weights.artifact for question in speaker.asked}
    assert by_name[job.fine_tuned_model] in winner.artifacts

    wrong = f"{job.fine_tuned_model}:trial-1-step-9"
    with pytest.raises(openai.NotFoundError, match="only the final weights"):
        client.chat.completions.create(model=wrong, messages=HELLO)
    with pytest.raises(openai.NotFoundError, match="no job has such a trial"):
        client.chat.completions.create(model=f"{job.fine_tuned_model}:trial-99", messages=HELLO)


def test_a_result_can_be_deleted_and_the_job_stays(client: OpenAI, service: Service, worker: FakeWorker) -> None:
    job_id = service.submit(search={"trials": 2, "confirmations": 0})
    worker.work_until_ended(service.client, job_id)
    name = service.client.job(job_id).fine_tuned_model
    assert name is not None
    files = [each.files.items() for each in service.client.best(job_id).artifacts]
    weights = {digest for items in files for path, digest in items if path.endswith(".safetensors")}
    assert len(weights) == 2
    assert client.models.delete(name).deleted
    with pytest.raises(openai.NotFoundError, match="was not found"):
        client.models.retrieve(name)
    assert name not in [model.id for model in client.models.list()]
    best = service.client.best(job_id)
    assert (best.artifacts, best.model) == ((), None)
    with pytest.raises(NotFound, match=rf"{job_id} .*deleted"), service.client.artifact(job_id):
        pass
    assert service.client.job(job_id).status == "succeeded"
    assert service.messages(job_id)[-1].startswith(f"The model {name} ")
    with service.context.database.read() as c:
        assert artifacts.unreferenced(c, weights) == weights, "their blobs are swept away"
    with pytest.raises(openai.NotFoundError):
        client.models.delete(name)


def test_jobs_are_filtered_by_all_of_their_metadata_and_paged(client: OpenAI, service: Service) -> None:
    tags = [{"team": "strings", "run": "a"}, {"team": "strings", "run": "b"}, {"team": "strings", "run": "a"}]
    made = [service.submit(metadata=each, search={"trials": 2}) for each in tags]
    page = client.fine_tuning.jobs.list(metadata={"team": "strings", "run": "a"}, limit=1)
    assert page.has_more
    assert [job.id for job in page] == [made[2], made[0]]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"team": "strings"})] == made[::-1]
    assert list(client.fine_tuning.jobs.list(metadata={"team": "strings", "run": "c"})) == []
    for job_id in made:
        service.client.cancel(job_id)


def test_the_page_on_openais_client_does_what_it_says(
    service: Service,
    speaker: Speaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.client.add_model("my-model", str(TINY_CHAT))
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums()))
    monkeypatch.chdir(tmp_path)
    script = "\n".join(re.findall(r"<!-- test: openai-client -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            if (assignment := speaker.worker.lease()) is not None:
                speaker.worker.work(assignment)
            if (generation := speaker.offer()) is not None:
                speaker.say(generation, 0, "The Neckar.")
                speaker.finish(generation, speaker.end)

    monkeypatch.setattr("service.inference.dispatch.OFFER_SECONDS", 0.2)
    thread = beside(work)
    try:
        exec(script.replace("http://127.0.0.1:8420", service.url), {})
    finally:
        over.set()
        thread.join()
    printed = capsys.readouterr().out
    assert "my-model says The Neckar." in printed
    assert "ft:my-model:rivers:" in printed
    assert printed.count("The Neckar.") == 4


def test_completions_are_passed_on_to_the_server_that_a_setting_names(tmp_path: Path) -> None:
    with serving(tmp_path / "other") as other:
        other.add_model("served")
        speaker = Speaker(FakeWorker(other.http))
        speaker.worker.register()
        with (
            serving(tmp_path / "home", vllm_url=f"{other.url}/v1", vllm_api_key="key") as service,
            OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client,
        ):
            thread = beside(lambda: [speaker.speak() for _ in range(3)])
            whole = client.chat.completions.create(model="served", messages=HELLO)
            assert whole.choices[0].message.content == "Good day!"
            stream = client.chat.completions.create(model="served", messages=HELLO, stream=True)
            assert [chunk.choices[0].delta.content for chunk in stream] == ["", "Good", " day", "!", None]
            assert client.completions.create(model="served", prompt="Once").choices[0].text == "Good day!"
            thread.join()
            with pytest.raises(openai.NotFoundError, match="unknown"):
                client.chat.completions.create(model="unknown", messages=HELLO)
    with (
        serving(tmp_path / "alone", vllm_url="http://127.0.0.1:9/v1") as service,
        OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match=r"LUTHIER_VLLM_URL, http://127\.0\.0\.1:9/v1/chat"),
    ):
        client.chat.completions.create(model="served", messages=HELLO)
