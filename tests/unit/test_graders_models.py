"""`score_model` and `label_model` ask a real endpoint. An answer without a grade is 0.0; no answer at all raises."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from luthier.errors import GraderFault
from luthier.graders import Graded, assess, check, endpoint, grade, grade_many, sample_of
from luthier.settings import GraderSettings, Settings
from luthier.task import LabelModel, Multi, SamplingParams, ScoreModel, StringCheck
from tests.chat_endpoint import ChatEndpoint, Said, chatting, completion

ASKED = ({"role": "user", "content": "Is {{item.city}} in: {{sample.output_text}}?"},)
SCORE = ScoreModel.model_validate({"model": "judge", "input": ASKED})
LABEL = LabelModel.model_validate(
    {"model": "judge", "input": ASKED, "labels": ["good", "fair", "bad"], "passing_labels": ["good", "fair"]}
)
ITEM = {"city": "Paris"}


class Scripted:
    """What the endpoint says: `said` to everybody, or what it returns for a body."""

    def __init__(self) -> None:
        self.said: Any = '{"reasoning": "so", "result": 0.75}'

    def __call__(self, body: dict[str, Any]) -> Said:
        said: Said = self.said(body) if callable(self.said) else self.said
        return said


@pytest.fixture
def script() -> Scripted:
    return Scripted()


@pytest.fixture
def chat(script: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatEndpoint]:
    monkeypatch.setattr(endpoint, "PAUSE_SECONDS", 0.001)
    with chatting(script) as served:
        yield served


def to(chat: ChatEndpoint, **more: Any) -> GraderSettings:
    return GraderSettings(grader_base_url=chat.url, **more)


def graded(grader: ScoreModel | LabelModel | Multi, chat: ChatEndpoint) -> Graded:
    return assess(grader, item=ITEM, sample=sample_of("I saw Paris"), settings=to(chat))


def test_the_model_is_asked_with_the_templates_filled_and_a_schema(chat: ChatEndpoint) -> None:
    found = graded(SCORE, chat)
    assert found == Graded(reward=0.75, tokens={"judge": 7})
    [body] = chat.asked
    [message] = body["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith("Is Paris in: I saw Paris?\n\n")
    assert "from 0 to 1" in message["content"]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["result"] == {"type": "number"}
    assert set(body) == {"model", "messages", "response_format"}


def test_roles_parts_and_sampling_are_sent_as_servers_know_them(chat: ChatEndpoint) -> None:
    said = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be "}, "strict."]},
        {"type": "message", "role": "assistant", "content": {"type": "output_text", "text": "{{sample.output_text}}"}},
    ]
    params = SamplingParams(temperature=0, seed=3, max_completions_tokens=50)
    own = ScoreModel.model_validate({"model": "judge", "input": said, "sampling_params": params.model_dump()})
    assert graded(own, chat).reward == 0.75
    [body] = chat.asked
    assert [(m["role"], m["content"]) for m in body["messages"][:2]] == [
        ("system", "Be strict."),
        ("assistant", "I saw Paris"),
    ]
    assert body["messages"][2]["role"] == "user"  # how to answer is said there
    assert (body["temperature"], body["seed"], body["max_completion_tokens"]) == (0, 3, 50)


def test_what_an_answer_says_is_never_read_as_a_template(chat: ChatEndpoint) -> None:
    grade(SCORE, item={"city": "P", "secret": "x1"}, sample=sample_of("{{item.secret}}"), settings=to(chat))
    assert "{{item.secret}}" in chat.asked[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ('{"reasoning": "", "result": 1}', 1.0),
        ('{"result": "0.5"}', 0.5),
        ('<think>{"result": 0}? no.</think>\n```json\n{"reasoning": "{", "result": 0.25}\n```', 0.25),
        (" 0.5\n", 0.5),
        ('{"result": 1.7}', 1.0),  # outside of the range: the nearest number inside
        ('{"result": -3}', 0.0),
    ],
)
def test_a_score_is_read_from_the_json_or_the_bare_text(
    chat: ChatEndpoint, script: Scripted, said: str, reward: float
) -> None:
    script.said = said
    assert graded(SCORE, chat) == Graded(reward=reward, tokens={"judge": 7})


def test_a_score_keeps_to_its_own_range(chat: ChatEndpoint, script: Scripted) -> None:
    own = SCORE.model_copy(update={"range": (1.0, 10.0)})
    rewards = []
    for script.said in ('{"result": 7}', '{"result": 0}', '{"result": 11}'):
        rewards.append(graded(own, chat).reward)
    assert rewards == [7.0, 1.0, 10.0]
    assert "from 1 to 10" in chat.asked[0]["messages"][0]["content"]


@pytest.mark.parametrize(("said", "reward"), [("good", 1.0), ("fair", 1.0), ("bad", 0.0)])
@pytest.mark.parametrize("form", ['{{"reasoning": "", "result": "{}"}}', "{}"])
def test_a_label_passes_or_does_not(chat: ChatEndpoint, script: Scripted, said: str, reward: float, form: str) -> None:
    script.said = form.format(said)
    assert graded(LABEL, chat) == Graded(reward=reward, tokens={"judge": 7})
    result = chat.asked[0]["response_format"]["json_schema"]["schema"]["properties"]["result"]
    assert result == {"type": "string", "enum": ["good", "fair", "bad"]}
    assert '"good", "fair", "bad"' in chat.asked[0]["messages"][0]["content"]


@pytest.mark.parametrize("grader", [SCORE, LABEL], ids=lambda grader: grader.type)
@pytest.mark.parametrize(
    "said", ["No idea.", "", '{"result": null}', '{"result": true}', '{"result": NaN}', '{"result": {}}', "{" * 5_000]
)
def test_nonsense_grades_zero_and_is_said(
    chat: ChatEndpoint, script: Scripted, grader: ScoreModel | LabelModel, said: str
) -> None:
    script.said = said
    found = graded(grader, chat)
    assert found.reward == 0.0
    [fault] = found.faults
    assert fault.kind == "model_grader_parse_error"
    assert "judge did not answer with" in fault.message
    assert grade(grader, item=ITEM, sample=sample_of("x"), settings=to(chat)) == 0.0


def test_a_refusal_grades_zero_and_is_said(chat: ChatEndpoint, script: Scripted) -> None:
    script.said = (200, completion(None, refusal="I would rather not."))
    found = graded(LABEL, chat)
    assert (found.reward, found.faults[0].kind) == (0.0, "model_grader_refusal_error")
    assert "I would rather not." in found.faults[0].message


def test_a_server_without_structured_output_is_asked_without(chat: ChatEndpoint, script: Scripted) -> None:
    script.said = lambda body: (400, {"error": {"message": "?"}}) if "response_format" in body else '{"result": 1}'
    settings = to(chat, grader_concurrency=1)
    assert grade_many(SCORE, [(ITEM, sample_of("x"))] * 3, settings) == [1.0, 1.0, 1.0]
    assert ["response_format" in body for body in chat.asked] == [True, False, False, False]


# Trouble


@pytest.mark.parametrize("trouble", [429, 500, 503])
def test_passing_trouble_is_waited_for(chat: ChatEndpoint, script: Scripted, trouble: int) -> None:
    script.said = lambda body: (trouble, "busy") if len(chat.asked) < 4 else '{"result": 1}'
    chat.headers["retry-after"] = "0"
    assert grade(SCORE, item=ITEM, sample=sample_of("x"), settings=to(chat)) == 1.0
    assert len(chat.asked) == 4


@pytest.mark.parametrize(
    ("said", "message", "times"),
    [
        ((401, {"error": {"message": "no such key: sk-secret"}}), r" 401: no such key: \*\*\*", 1),
        ((404, {"error": {"message": "no model 'judge'"}}), " 404: no model 'judge'", 1),
        ((500, "oops"), " 500: oops", 8),
        ((200, "<html>"), "chat completion: <html>", 1),
        ((200, {"choices": []}), r"chat completion: \{", 1),
    ],
)
def test_an_endpoint_that_cannot_grade_raises_without_its_key(
    chat: ChatEndpoint, script: Scripted, said: Said, message: str, times: int
) -> None:
    script.said = said
    settings = to(chat, grader_api_key=SecretStr("sk-secret"))
    with pytest.raises(GraderFault, match=message) as raised:
        grade(SCORE, item=ITEM, sample=sample_of("x"), settings=settings)
    assert raised.value.kind == "model_grader_server_error"
    assert chat.url in raised.value.message
    assert "sk-secret" not in str(raised.value) + repr(settings)
    assert len(chat.asked) == times
    assert set(chat.keys) == {"Bearer sk-secret"}


def test_an_unreachable_endpoint_raises_instead_of_grading_zero(chat: ChatEndpoint) -> None:
    gone = GraderSettings(grader_base_url="http://127.0.0.1:9/v1")
    answers = [(ITEM, sample_of("x"))] * 32
    with pytest.raises(GraderFault, match=r"http://127.0.0.1:9/v1/chat/completions .*ConnectError"):
        grade_many(Multi(graders={"a": SCORE, "b": StringCheck()}, calculate_output="a + b"), answers, gone)
    found = assess(SCORE, item=ITEM, sample=sample_of("x"), settings=gone)
    assert (found.reward, [fault.kind for fault in found.faults]) == (0.0, ["model_grader_server_error"])


def test_a_slow_endpoint_is_not_waited_for_for_ever(chat: ChatEndpoint, script: Scripted) -> None:
    done = threading.Event()
    script.said = lambda body: str(float(done.wait(60)))
    with pytest.raises(GraderFault, match="ReadTimeout"):
        grade(SCORE, item=ITEM, sample=sample_of("x"), settings=to(chat, grader_timeout_seconds=0.1))
    done.set()


# Many answers


def test_many_answers_are_asked_about_at_once_and_graded_in_their_order(chat: ChatEndpoint, script: Scripted) -> None:
    together = threading.Barrier(4)  # nobody is answered before four are asking

    def say(body: dict[str, Any]) -> Said:
        together.wait(60)
        return body["messages"][0]["content"].split("in: ")[1].split("?")[0]

    script.said = say
    answers = [(ITEM, sample_of(str(n / 32))) for n in range(32)]
    assert grade_many(SCORE, answers, to(chat, grader_concurrency=4)) == [n / 32 for n in range(32)]


def test_no_more_are_asked_about_at_a_time_than_the_setting_says(chat: ChatEndpoint, script: Scripted) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def say(body: dict[str, Any]) -> Said:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.02)
        with lock:
            now -= 1
        return "1"

    script.said = say
    assert grade_many(SCORE, [(ITEM, sample_of("x"))] * 12, to(chat, grader_concurrency=2)) == [1.0] * 12
    assert most <= 2


def test_a_multi_adds_up_the_tokens_of_its_models(chat: ChatEndpoint) -> None:
    other = SCORE.model_copy(update={"model": "other"})
    both = Multi(
        graders={"a": SCORE, "b": SCORE, "c": other, "d": StringCheck(reference="I saw Paris")},
        calculate_output="a + b + c + d",
    )
    found = graded(both, chat)
    assert found.reward == 3.25
    assert found.tokens == {"judge": 14, "other": 7}


# Refusals


@pytest.mark.parametrize("grader", [SCORE, LABEL, Multi(graders={"a": SCORE}, calculate_output="a")], ids=str)
def test_without_an_endpoint_nothing_is_asked(grader: Any) -> None:
    for refuse in (
        lambda: check(grader),
        lambda: grade(grader, item=ITEM, sample=sample_of("x")),
        lambda: assess(grader, item=ITEM, sample=sample_of("x")),
    ):
        with pytest.raises(GraderFault, match="LUTHIER_GRADER_BASE_URL") as refused:
            refuse()
        assert refused.value.param == ("graders.a.type" if isinstance(grader, Multi) else "type")


def test_the_endpoint_is_read_from_the_environment(chat: ChatEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_GRADER_BASE_URL", chat.url + "/")
    monkeypatch.setenv("LUTHIER_GRADER_API_KEY", "sk-secret\n")
    assert grade(SCORE, item=ITEM, sample=sample_of("x")) == 0.75
    assert chat.keys == ["Bearer sk-secret"]
    assert "sk-secret" not in repr(Settings()) + Settings().model_dump_json()


def test_templates_of_the_messages_are_checked_by_their_position(chat: ChatEndpoint) -> None:
    own = SCORE.model_copy(
        update={"input": (*SCORE.input, SCORE.input[0].model_copy(update={"content": "{{item.x}}"}))}
    )
    with pytest.raises(GraderFault, match=r"item\.x.*'x'") as refused:
        check(own, [ITEM], to(chat))
    assert refused.value.param == "input.1.content"
