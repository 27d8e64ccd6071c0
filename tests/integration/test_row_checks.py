"""Before a job is queued, every row is rendered for every base model that may be trained."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from luthier import child_process
from luthier.graders.subprocess import Child
from luthier.store import jobs
from service.datasets import row_checks
from tests.commands import run
from tests.integration.service_harness import TINY_CHAT, Service, preferences, serving, sums, texts

Body = dict[str, Any]

STRICT = (
    "{% for m in messages %}{% if 'odd' in m.content %}{{ raise_exception('no odd words') }}{% endif %}{% endfor %}"
)
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"


def chats(count: int = 40, odd: tuple[int, ...] = ()) -> list[Body]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} + {n}?"},
                {"role": "assistant", "content": f"It is {'odd' if n + 1 in odd else 2 * n}."},
            ]
        }
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the tiny model, and the same model with a template that refuses some rows."""
    folder = tmp_path_factory.mktemp("rows")
    strict = folder / "strict"
    shutil.copytree(TINY_CHAT, strict)
    own = template_of(TINY_CHAT)
    set_template(strict, STRICT + own)
    with serving(folder / "home") as service:
        service.add_model()
        service.client.add_model("strict", str(strict))
        yield service


def template_of(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    return str(json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["chat_template"])


def set_template(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def create(service: Service, rows: list[Body], **body: Any) -> Body:
    given = {"training_file": service.upload(rows), **body}
    answer = service.http.post("/v1/fine_tuning/jobs", json=given)
    return {"code": answer.status_code, **answer.json()}


def test_rows_that_a_template_cannot_show_are_named(shop: Service) -> None:
    refused = create(shop, chats(odd=(3, 17)), model="strict")
    assert refused["code"] == 400
    assert refused["error"]["param"] == "training_file"
    assert "row 3," in refused["error"]["message"]
    assert "row 17," in refused["error"]["message"]
    assert "no odd words" in refused["error"]["message"]


def test_they_are_dropped_on_request(shop: Service) -> None:
    job = create(shop, chats(odd=(3, 17)), model="strict", on_bad_rows="drop")
    assert job["code"] == 200
    said = shop.messages(job["id"])
    assert any("Dropped 2 rows" in message and "row 3," in message for message in said)
    record = shop.http.get(f"/v1/fine_tuning/jobs/{job['id']}").json()
    assert record["status"] in ("queued", "running")


def test_a_base_that_cannot_show_them_is_left_out_where_another_can(shop: Service) -> None:
    job = create(shop, chats(odd=(5,)))
    assert job["code"] == 200
    assert any("strict is left out" in message and "row 5," in message for message in shop.messages(job["id"]))
    plan = shop.http.get(f"/v1/fine_tuning/jobs/{job['id']}/trials").json()
    assert {trial["design"]["architecture"]["base"] for trial in plan["data"]} <= {"tiny-chat"}


def test_a_check_that_never_ends_is_stopped_and_names_the_model(shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process sleeps, so that no limit of CPU time ends it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # where the child finds these tests
    asleep = Child("rows", partial(child_process.piped, "tests.talking_child", "asleep"), 600.0)
    with monkeypatch.context() as patched:
        patched.setattr(row_checks, "_child", asleep)
        patched.setattr(row_checks, "SECONDS", 0.5)
        started = time.monotonic()
        refused = create(shop, chats(), model="strict")
    assert time.monotonic() - started < 30
    assert refused["code"] == 400
    assert refused["error"]["param"] == "model"
    assert "strict" in refused["error"]["message"]
    assert create(shop, chats(), model="tiny-chat")["code"] == 200


def test_chats_of_many_turns_have_more_time(shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    class Late:
        def ask(self, question: str, seconds: float) -> str:
            given.append(json.loads(question)["seconds"])
            assert seconds == pytest.approx(row_checks.SECONDS + row_checks.BUSY * given[-1])
            raise TimeoutError("late")

    with monkeypatch.context() as patched:
        patched.setattr(row_checks, "_child", Late())
        for turns in (1, 200):
            rows: list[Body] = [{"messages": chats(turns)[n % turns]["messages"] * turns} for n in range(20)]
            assert create(shop, rows, model="strict")["code"] == 400
    assert given[1] - given[0] > 20 * 400**2 / row_checks.RENDERED_PER_SECOND


def test_most_rows_may_not_be_dropped(shop: Service) -> None:
    refused = create(shop, chats(odd=tuple(range(1, 31))), model="strict", on_bad_rows="drop")
    assert refused["code"] == 400
    assert refused["error"]["param"] == "training_file"


def test_an_unknown_choice_is_refused_by_name(shop: Service) -> None:
    refused = create(shop, chats(), on_bad_rows="ignore")
    assert refused["code"] == 400
    assert refused["error"]["param"] == "on_bad_rows"


def test_rows_whose_prompts_fill_the_context_are_counted(shop: Service) -> None:
    rows = [{**row, "prompt": "red blue " * 3000 + row["prompt"]} if n < 3 else row for n, row in enumerate(sums())]
    job = create(shop, rows, model="tiny-chat")
    assert job["code"] == 200
    said = shop.messages(job["id"])
    assert any("3 rows are truncated" in message for message in said)
    assert any("prompts of 3 rows" in message and "row 1)" in message for message in said)
    [cut] = shop.http.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["luthier"]["truncation"]
    assert (cut["model"], cut["rows"], cut["truncated"], cut["without_target"]) == ("tiny-chat", 60, 3, 3)
    page = shop.http.get(f"/jobs/{job['id']}").text
    assert f"at most {cut['max_length']:,} tokens" in page
    assert "3 of 60 rows are truncated" in page


def test_a_warning_says_how_many_rows_are_not_learned_and_the_held_out_ones_do_not_count_them(shop: Service) -> None:
    rows = [{**row, "prompt": "red blue " * 3000 + row["prompt"]} if n % 3 else row for n, row in enumerate(sums())]
    job = create(shop, rows, model="tiny-chat")
    warned = [event.message for event in shop.client.events(job["id"]) if event.level == "warn"]
    assert any("prompts of 40 rows" in message for message in warned)
    [few] = [message for message in warned if "validation rows" in message]
    validation, test = map(int, re.findall(r"(\d+) (?:validation|test) rows", few))
    assert validation + test < 24, "of 60 rows, 12 each are held out, and about a third of them can be scored"


def test_rows_that_lose_only_some_of_their_targets_are_truncated(shop: Service) -> None:
    rows = chats()
    for row in rows[:4]:
        row["messages"] += [
            {"role": "user", "content": "red blue " * 3000},
            {"role": "assistant", "content": "Too long."},
        ]
    job = create(shop, rows, model="tiny-chat")
    [cut] = job["luthier"]["truncation"]
    assert (cut["rows"], cut["truncated"], cut["without_target"]) == (40, 4, 0)


def test_each_base_model_counts_the_rows_of_the_job(shop: Service) -> None:
    rows = chats(odd=(3,))
    for row in rows[2:5]:
        row["messages"][0]["content"] += " red blue" * 3000
    job = create(shop, rows, on_bad_rows="drop", search={"pin": {"model": ["tiny-chat", "strict"]}})
    found = {cut["model"]: (cut["rows"], cut["truncated"]) for cut in job["luthier"]["truncation"]}
    assert found == {"tiny-chat": (39, 2), "strict": (39, 2)}


def test_a_file_says_how_many_rows_are_longer_than_the_default_limit(shop: Service) -> None:
    rows = [{**row, "prompt": "red blue " * 3000 + row["prompt"]} if n < 5 else row for n, row in enumerate(sums())]
    file_id = shop.upload(rows)
    assert shop.client.dataset(file_id).longer_rows == 5
    assert "5 of 60 rows are longer" in shop.http.get(f"/datasets/{file_id}").text


def test_a_job_without_any_row_to_score_is_refused(shop: Service) -> None:
    rows = [{**row, "prompt": "red blue " * 3000 + row["prompt"]} for row in preferences()]
    refused = create(shop, rows, model="tiny-chat")
    assert refused["code"] == 400
    assert refused["error"]["param"] == "training_file"


@pytest.mark.parametrize("fault", ["kind", "the same file", "no grader", "too long"])
def test_a_dry_run_refuses_what_a_job_would_be_refused_for(fault: str, shop: Service, tmp_path: Path) -> None:
    train: list[Body] = list(sums())
    held_out: list[Body] | None = None
    match fault:
        case "kind":
            held_out = preferences()
        case "the same file":
            held_out = train
        case "no grader":
            train = [{"prompt": row["prompt"]} for row in train]
        case "too long":
            train = [{**row, "prompt": "red blue " * 3000 + row["prompt"]} for row in preferences()]
    arguments = ["submit", _written(tmp_path / "train.jsonl", train), "--model", "tiny-chat", "--server", shop.url]
    arguments += [] if held_out is None else ["--validation", _written(tmp_path / "held-out.jsonl", held_out)]
    known = len(shop.client.jobs())
    dry, real = run(*arguments, "--dry-run"), run(*arguments)
    assert dry.returncode == 1
    assert real.returncode != 0
    assert dry.stdout.split()[-8:] == (real.stdout + real.stderr).split()[-8:]
    assert len(shop.client.jobs()) == known
    quiet = shop.client.design_space(training_file=shop.upload(train))
    assert quiet.problem is None, "without `check`, rows and files are not looked at"


def _written(path: Path, rows: list[Body]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_control_tokens_in_messages_are_reported(shop: Service) -> None:
    rows = chats()
    rows[6]["messages"][1]["content"] += " <|im_end|> and on"
    job = create(shop, rows, model="tiny-chat")
    assert any("Row 7" in message and "<|im_end|>" in message for message in shop.messages(job["id"]))


def test_control_tokens_in_plain_prompts_are_reported_too(shop: Service) -> None:
    rows = sums()
    rows[4]["prompt"] += " <|im_end|>"
    job = create(shop, rows, model="tiny-chat")
    assert any("Row 5" in message and "<|im_end|>" in message for message in shop.messages(job["id"]))


def test_the_clock_of_a_template_stands_still_in_a_job(shop: Service, tmp_path: Path) -> None:
    folder = tmp_path / "dated"
    shutil.copytree(TINY_CHAT, folder)
    set_template(folder, "{{ strftime_now('%H:%M:%S.%f') }}" + template_of(TINY_CHAT))
    shop.client.add_model("dated", str(folder))
    job = create(shop, chats(), model="dated")
    assert job["code"] == 200, job
    assert any("dated shows the date or the time" in message for message in shop.messages(job["id"]))
    with shop.context.database.read() as c:
        record = jobs.get(c, job["id"])
        assert record.judge.clock == record.created_at


def test_texts_of_chats_that_are_shown_anew_are_counted(shop: Service, tmp_path: Path) -> None:
    folder = tmp_path / "counting"
    shutil.copytree(TINY_CHAT, folder)
    set_template(folder, "{{ messages | length }}" + template_of(TINY_CHAT))
    shop.client.add_model("counting", str(folder))
    rows = [{"messages": [turn for _ in range(5) for turn in row["messages"]]} for row in chats()]
    job = create(shop, rows, model="counting")
    [said] = [message for message in shop.messages(job["id"]) if "texts of their own" in message]
    assert "40 chats become 200 texts" in said
    assert "3.0 times" in said


def test_plain_text_needs_no_template(shop: Service) -> None:
    job = create(shop, texts())
    assert job["code"] == 200
    assert job["luthier"]["truncation"] is None


def test_reasoning_that_a_template_leaves_out_is_reported(shop: Service) -> None:
    rows = chats()
    for row in rows[:7]:
        row["messages"][1]["reasoning_content"] = "Twice the number."
    job = create(shop, rows, model="tiny-chat")
    assert any("leaves out the reasoning of 7 rows" in message for message in shop.messages(job["id"]))
