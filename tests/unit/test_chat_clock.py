"""Chat templates that show the time: it stands still within a job, and within a request of inference."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from luthier.models.chat_template import shows_tools, with_tools
from luthier.task import DataKind, JudgeSpec
from tests.conversations import CONVERSATIONS, speaking
from workers.cache import Base
from workers.evaluate.judge import renderer
from workers.train.data.tokenize import Renderer, Tokens

CLOCKS = ("%H:%M:%S.%f", "%d %b %Y", "%A, %-d %B")
CHRISTMAS = datetime(2031, 12, 24, 23, 59, 59, 999_999, tzinfo=UTC)


def showing(tiny: Base, pattern: str) -> PreTrainedTokenizerBase:
    own = copy.deepcopy(tiny.tokenizer)
    own.chat_template = f"{{{{ 'It is ' + strftime_now('{pattern}') }}}}{own.chat_template}"
    return own


def target_text(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> str:
    return str(tokenizer.decode([id_ for id_, is_target in zip(tokens.ids, tokens.target, strict=True) if is_target]))


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that shows another day whenever somebody looks at it."""
    days = itertools.count()

    class Days(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return CHRISTMAS + timedelta(days=next(days))

    monkeypatch.setattr(chat_template_utils, "datetime", Days)
    chat_template_utils._compile_jinja_template.cache_clear()


@pytest.fixture(autouse=True)
def templates_compiled_anew() -> Iterator[None]:
    """A compiled template keeps the clock of the test that stopped it last."""
    yield
    chat_template_utils._compile_jinja_template.cache_clear()


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("pattern", CLOCKS)
@pytest.mark.parametrize("name", ["system", "multi-turn", "starts with the assistant"])
def test_a_conversation_is_rendered_at_one_time(pattern: str, name: str, tiny: Base) -> None:
    own = showing(tiny, pattern)
    render = Renderer(own, window=512, max_tokens=512)
    said = CONVERSATIONS[name]
    [tokens] = render.answers({"messages": said}, DataKind.CHAT)
    answers = [turn["content"] for turn in said if turn["role"] == "assistant"]
    assert target_text(own, tokens) == "".join(f"{answer}<|im_end|>\n" for answer in answers)
    asked = render.prompt(said[:-1])
    assert tokens.ids[: len(asked)] == asked


def test_every_text_of_a_job_shows_the_time_of_its_judge(tiny: Base) -> None:
    own = showing(tiny, "%Y-%m-%d %H:%M")
    spec = JudgeSpec(kind=DataKind.PAIRS, validation="v", test="t", objective="perplexity", clock=CHRISTMAS)
    assert JudgeSpec.model_validate_json(spec.model_dump_json()) == spec
    for _ in range(2):
        tokens = renderer(own, spec).pair("Which wall?", "North.")
        assert str(own.decode(tokens.ids)).startswith("It is 2031-12-24 23:59<|im_start|>")
    present = Renderer(own, window=512, max_tokens=512)
    assert "2031-12-24" not in own.decode(present.prompt("Which wall?"))


def test_a_judge_without_a_clock_is_stored_as_before() -> None:
    spec = JudgeSpec(kind=DataKind.PAIRS, validation="v", test="t", objective="perplexity")
    assert "clock" not in spec.model_dump()


@pytest.mark.parametrize("template", ["llama3_2", "gptoss"])
def test_published_templates_show_the_time_that_the_renderer_has(template: str, tiny: Base) -> None:
    own = speaking(tiny.tokenizer, template)
    render = Renderer(own, window=512, max_tokens=512, clock=CHRISTMAS)
    shown = str(own.decode(render.prompt("Which wall?")))
    assert render.chat.shows_time
    assert "2031-12-24" in shown or "24 Dec 2031" in shown


def test_a_template_without_the_time_has_no_clock(tiny: Base) -> None:
    assert not Renderer(tiny.tokenizer, window=512, max_tokens=512).chat.shows_time


def test_a_ticking_clock_does_not_hide_tools(tiny: Base) -> None:
    extended = with_tools(str(tiny.tokenizer.chat_template))
    assert extended is not None
    ticking = "{{ strftime_now('%f') }}" + extended
    assert shows_tools(ticking)


def test_a_default_system_message_that_shows_the_date_is_not_written_into_a_template() -> None:
    dated = (
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
        "<|im_start|>system\nToday is {{ strftime_now('%d %b %Y') }}.<|im_end|>\n{% endif %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert with_tools(dated.replace("{{ strftime_now('%d %b %Y') }}", "Monday")) is not None
    assert with_tools(dated) is None
