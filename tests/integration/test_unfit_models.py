"""Base models that cannot read the rows of a job: left out with the reason, or refused with it if they are pinned."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import IllegalDesign
from luthier.store import models
from service.context import utc_now
from service.datasets import row_checks
from tests import broken_models
from tests.integration.service_harness import TINY_CHAT, Service, serving, texts

LOOPING = (
    "{% for m in messages %}{% if 'river' in m.content %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
)
TEMPLATES: dict[str, str] = {
    "raising": "{{ raise_exception('nobody may chat') }}",
    "static": "Hello.",
    "looping": LOOPING,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the tiny model; the same with templates that fail, without one, and with a short context as such
    models were registered once."""
    home = tmp_path_factory.mktemp("unfit")
    with serving(home / "home") as service:
        service.add_model("tiny-chat")
        for name, template in TEMPLATES.items():
            folder = shutil.copytree(TINY_CHAT, home / name)
            (folder / "chat_template.jinja").write_text(template)
            service.client.add_model(name, str(folder))
        mute = shutil.copytree(TINY_CHAT, home / "mute", ignore=shutil.ignore_patterns("chat_template.jinja"))
        service.client.add_model("mute", str(mute))
        with service.context.database.begin() as c:
            entry = next(entry for entry in models.list_(c) if entry.name == "tiny-chat")
            short = entry.facts.model_copy(update={"context": 5})
            untried = {"name": "short", "facts": short.model_copy(update={"untried": "it took too long"})}
            models.add(c, entry.model_copy(update=untried), utc_now())
        yield service


def chats(word: str = "lake") -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"What is {n}, and a {word}?"},
                {"role": "assistant", "content": f"It is {n * 3}."},
            ]
        }
        for n in range(40)
    ]


def test_what_a_template_cannot_show_is_part_of_the_facts(shop: Service) -> None:
    facts = {model.id: model.facts for model in shop.client.models() if model.facts is not None}
    assert {name: facts[name].chat_template for name in (*TEMPLATES, "mute", "tiny-chat")} == {
        "raising": False,
        "static": False,
        "looping": True,
        "mute": False,
        "tiny-chat": True,
    }
    assert "nobody may chat" in str(facts["raising"].chat_fault)
    assert "leaves out the text" in str(facts["static"].chat_fault)
    assert facts["tiny-chat"].chat_fault is None
    page = shop.http.get("/models").text
    assert page.count("data-chat-fault") == 2
    assert page.count("data-untried") == 1
    assert "it took too long" in page


def test_those_that_cannot_read_the_rows_are_left_out_with_the_reason(shop: Service) -> None:
    job = shop.submit(chats())
    assert set(shop.client.job(job).luthier.search.pin.model or ()) == {"tiny-chat", "looping"}
    [said] = [message for message in shop.messages(job) if "left out" in message]
    for reason in ("short: it has a context of 5 tokens", "nobody may chat", "mute: it has no chat template"):
        assert reason in said


def test_a_context_below_what_a_job_reads_fails_no_job(shop: Service) -> None:
    """It did, for every job that did not name its base models."""
    job = shop.submit(texts())
    assert "short" not in (shop.client.job(job).luthier.search.pin.model or ())
    with pytest.raises(IllegalDesign, match="short: it has a context of 5") as refused:
        shop.submit(texts(), model="short")
    assert refused.value.param == "model"
    answer = shop.http.post(
        "/v1/designs/estimate", json={"model": "short", "dataset": shop.upload(texts()), "change": {"epochs": 2}}
    )
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("names", "reasons"),
    [
        (["raising"], ["nobody may chat"]),
        (["mute", "tiny-chat"], ["mute: it has no chat template"]),
        (["static", "raising", "tiny-chat"], ["static: its chat template leaves out", "nobody may chat"]),
    ],
)
def test_a_pin_on_them_is_refused_with_the_reason(names: list[str], reasons: list[str], shop: Service) -> None:
    search = {"trials": 3, "confirmations": 0, "pin": {"model": names}}
    with pytest.raises(IllegalDesign) as refused:
        shop.submit(chats(), search=search)
    assert refused.value.param == "search.pin.model"
    assert all(reason in refused.value.message for reason in reasons)
    assert "can read the rows: looping, tiny-chat." in refused.value.message
    space = shop.client.design_space(training_file=shop.upload(chats()), search=search)
    assert space.problem is not None
    assert all(reason in space.problem.message for reason in reasons)
    choices = {choice.value: choice for axis in space.axes if axis.name == "model" for choice in axis.choices}
    assert not choices[names[0]].legal


def test_the_time_of_a_template_is_limited_for_all_rows_together(
    shop: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_checks, "TEMPLATE_SECONDS", 1.0)
    started = time.monotonic()
    job = shop.submit(chats("river"))
    assert time.monotonic() - started < 40
    assert shop.client.job(job).luthier.search.pin.model == ("tiny-chat",)
    assert any("looping is left out" in message and "seconds" in message for message in shop.messages(job))
    with pytest.raises(IllegalDesign, match=r"looping: .*seconds") as refused:
        shop.submit(chats("river"), search={"trials": 3, "pin": {"model": ["looping", "tiny-chat"]}})
    assert refused.value.param == "search.pin.model"


def test_a_broken_base_is_refused_over_http(shop: Service, tmp_path: Path) -> None:
    """Settings with which no model can be trained: the check on the tiny model refuses it."""
    endless = {"rope_type": "linear", "rope_theta": 1e4, "factor": 0.0}
    folder = broken_models.copy(tmp_path / "model", broken_models.config(rope_parameters=endless))
    answer = shop.http.post("/v1/models", json={"name": "endless", "source": str(folder)}, timeout=300)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == "source"
    assert "not finite" in error["message"]
    assert "endless" not in [model.id for model in shop.client.models()]
