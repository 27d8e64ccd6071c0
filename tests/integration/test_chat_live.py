"""OpenAI's unmodified client against a real service with a real worker: from a dataset to a chat with the result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import openai
import psutil
import pytest
from openai import OpenAI

from luthier.trial import TrialState
from tests import data_samples
from tests.live import TINY, Live, eventually

pytestmark = pytest.mark.xdist_group("chat")

ASK = "What does the owl near the pond eat?"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    service = Live(tmp_path_factory.mktemp("chat") / "home")
    service.start().add_model("tiny", str(TINY))
    yield service
    service.close()


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.server}/v1", api_key="none is needed", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def demo(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """The script, begun."""
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in data_samples.pairs(640)))
    command = [sys.executable, "-P", "-m", "demo.openai_client", str(file), "--server", live.server]
    command += ["--trials", "2", "--epochs", "1"]
    with subprocess.Popen([*command, "--ask", ASK], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def paused(live: Live, demo: subprocess.Popen[str]) -> str:
    """The demo's job, paused while it trains."""

    def training() -> str | None:
        for job in live.client.jobs():
            if any(trial.number == 1 and trial.state is TrialState.LEASED for trial in live.client.trials(job.id)):
                return job.id
        return None

    job_id = eventually(training)
    live.client.pause(job_id)
    return job_id


@pytest.fixture(scope="module")
def said(live: Live, demo: subprocess.Popen[str], paused: str) -> list[str]:
    """What the script has printed, once the job was resumed and has ended."""
    if live.client.job(paused).luthier.paused:
        live.client.resume(paused)
    printed, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0, printed
    return printed.strip().splitlines()


@pytest.fixture(scope="module")
def tuned(live: Live, said: list[str], paused: str) -> str:
    model = live.client.job(paused).fine_tuned_model
    assert model is not None
    return model


def test_a_running_trial_of_a_paused_job_is_given_back_and_loses_nothing(live: Live, paused: str) -> None:
    eventually(lambda: not live.client.job(paused).luthier.trials_running)
    assert live.client.job(paused).luthier.paused
    [trial] = [trial for trial in live.client.trials(paused) if trial.number == 1]
    assert (trial.state, trial.attempts) == (TrialState.WAITING, 0)
    given_back = [point.step for point in live.client.points(paused, trial.id, "train_loss")]
    assert given_back, "it was in the middle of its training"
    assert live.command("resume", paused).returncode == 0
    eventually(lambda: live.client.job(paused).status.terminal)
    steps = [point.step for point in live.client.points(paused, trial.id, "train_loss")]
    assert len(given_back) < len(steps)
    assert steps == list(range(1, len(steps) + 1))
    told = [event.message for event in live.client.events(paused)]
    assert any(message.startswith("Paused: the running trial") for message in told)
    [again] = [message for message in told if message.startswith("Trial 1 started again")]
    assert "(lease 2)" in again


def test_the_demo_goes_from_a_dataset_to_a_chat_with_the_result(said: list[str], tuned: str) -> None:
    assert any("2 trials" in line and "pairs.jsonl" in line for line in said)
    assert any(line.startswith("Finished") for line in said)
    *_, base, result = (line.partition(": ") for line in said)
    assert (base[0], result[0]) == ("tiny", tuned)
    assert "eats" in result[2] != base[2]


def test_base_and_result_take_turns_in_one_process_and_stay_what_they_are(
    live: Live, client: OpenAI, tuned: str
) -> None:
    def ask(model: str) -> str | None:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": ASK}], temperature=0, max_completion_tokens=24
        )
        return answer.choices[0].message.content

    first = [ask(model) for model in ("tiny", tuned)]
    process = live.generation_processes()
    assert len(process) == 1
    assert [ask(model) for model in ("tiny", tuned)] == first
    assert first[0] != first[1]
    assert live.generation_processes() == process
    assert live.client.chat(tuned, ASK, temperature=0, max_tokens=24).choices[0].message.content == first[1]
    assert "".join(live.client.stream_chat(tuned, ASK, temperature=0, max_tokens=24)) == first[1]

    printed = live.command("generate", "last", ASK, "--max-new-tokens", "24")
    assert (printed.returncode, printed.stdout) == (0, f"{first[1]}\n"), printed.stderr
    based = live.command("generate", "last", ASK, "--max-new-tokens", "24", "--base")
    assert based.stdout == f"{first[0]}\n"


def test_draws_follow_the_seed_and_answers_end_where_they_are_told(client: OpenAI) -> None:
    def ask(seed: int) -> openai.types.Completion:
        return client.completions.create(model="tiny", prompt="I", seed=seed, max_tokens=24, temperature=1.5)

    drawn = ask(1)
    assert ask(1).choices == drawn.choices != ask(2).choices
    [choice], usage = drawn.choices, drawn.usage
    assert usage is not None
    assert (choice.finish_reason, usage.completion_tokens) == ("length", 24) or choice.finish_reason == "stop"
    stop = choice.text[5:8]
    again = client.completions.create(model="tiny", prompt="I", seed=1, max_tokens=24, temperature=1.5, stop=[stop])
    assert again.choices[0].text == choice.text[: choice.text.index(stop)]
    assert again.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match=r"\d{4} tokens.*tiny") as refused:
        client.completions.create(model="tiny", prompt="I " * 2000)
    assert refused.value.param == "prompt"


def test_the_process_of_a_worker_that_is_killed_ends_and_leaves_nothing_behind(live: Live) -> None:
    cache = live.home / "cache" / "blobs"
    assert list(cache.glob("generation-*"))
    [process] = live.generation_processes()
    [worker] = live.worker_processes()
    worker.kill()
    psutil.wait_procs([process], timeout=20)
    assert not process.is_running()
    eventually(lambda: not list(cache.glob("generation-*")))
