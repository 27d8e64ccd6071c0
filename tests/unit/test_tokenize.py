"""Rows become the tokens that a model reads, and exactly the answers become targets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from luthier.errors import TrialFailed
from luthier.models import chat_template
from luthier.task import DataKind, JudgeSpec
from tests import data_samples
from tests.conversations import speaking
from tests.textbook import as_conversation
from workers import cache
from workers.cache import Base
from workers.train.data.tokenize import Renderer, Tokens

LONG = 512
PUBLISHED = files("trl") / "chat_templates"
ANSWERED = {
    DataKind.PAIRS: data_samples.pairs(8),
    DataKind.CHAT: data_samples.chat(8),
    DataKind.PREFERENCE: data_samples.preference(8),
}


@pytest.fixture(scope="module")
def tokenizer(tiny: Base) -> PreTrainedTokenizerBase:
    return tiny.tokenizer


@pytest.fixture(scope="module")
def untemplated(tiny: Base) -> PreTrainedTokenizerBase:
    """The same tokenizer as that of a base model that never saw a conversation."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.chat_template = None
    return tokenizer


def renderer(tokenizer: PreTrainedTokenizerBase, *, window: int = LONG, max_tokens: int = LONG) -> Renderer:
    return Renderer(tokenizer, window=window, max_tokens=max_tokens)


def with_template(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def target_text(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> str:
    return str(tokenizer.decode([id_ for id_, is_target in zip(tokens.ids, tokens.target, strict=True) if is_target]))


def test_a_pair_is_rendered_by_the_chat_template_and_its_answer_is_the_target(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokens = renderer(tokenizer).pair("Who eats hay?", "The horse.")
    assert tokenizer.decode(tokens.ids) == (
        "<|im_start|>user\nWho eats hay?<|im_end|>\n<|im_start|>assistant\nThe horse.<|im_end|>\n"
    )
    assert target_text(tokenizer, tokens) == "The horse.<|im_end|>\n"
    assert tokens.target_bytes == len("The horse.")


def test_a_pair_of_texts_and_the_same_pair_as_messages_are_one(tokenizer: PreTrainedTokenizerBase) -> None:
    for row in data_samples.pairs(8):
        spoken = as_conversation(row)
        render = renderer(tokenizer)
        assert render.pair(**row) == render.pair(**spoken)


def test_without_a_chat_template_prompt_answer_and_end_token_stand_as_plain_text(
    untemplated: PreTrainedTokenizerBase,
) -> None:
    tokens = renderer(untemplated).pair("Who eats hay?", " The horse.")
    assert untemplated.decode(tokens.ids) == "Who eats hay? The horse.<|im_end|>"
    assert target_text(untemplated, tokens) == " The horse.<|im_end|>"
    assert tokens.target_bytes == len(" The horse.")


def test_an_end_token_that_the_answer_has_already_is_not_doubled(untemplated: PreTrainedTokenizerBase) -> None:
    tokens = renderer(untemplated).pair("Who eats hay?", " The horse.<|im_end|>")
    assert target_text(untemplated, tokens) == " The horse.<|im_end|>"


def test_a_token_that_spells_both_prompt_and_answer_is_a_target(untemplated: PreTrainedTokenizerBase) -> None:
    """A space at the end of a prompt joins the first word of the answer in one token."""
    tokens = renderer(untemplated).pair("Is the sky blue? Answer: ", "yes")
    assert target_text(untemplated, tokens) == " yes<|im_end|>"


@pytest.mark.parametrize("row", data_samples.chat(4))
def test_the_targets_of_a_chat_are_exactly_its_assistant_turns_of_weight_one(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    [tokens] = renderer(tokenizer).answers(row, DataKind.CHAT)
    turns = [m["content"] for m in row["messages"] if m["role"] == "assistant" and m.get("weight", 1)]
    assert target_text(tokenizer, tokens) == "".join(f"{turn}<|im_end|>\n" for turn in turns)
    assert tokens.target_bytes == sum(len(turn) for turn in turns)
    assert tokenizer.decode(tokens.ids) == tokenizer.apply_chat_template(row["messages"], tokenize=False)


def test_bytes_count_the_utf_8_of_the_answers_without_template_marks(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = renderer(tokenizer).pair("¿Qué?", "Größe 🙂")
    assert tokens.target_bytes == len("Größe 🙂".encode())


def test_tool_calls_are_content_too(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content or m.tool_calls | tojson }}\n{% endfor %}"
    speaking = with_template(tokenizer, template + "{% if add_generation_prompt %}[assistant]{% endif %}")
    call = [{"type": "function", "function": {"name": "clock", "arguments": {}}}]
    row = {"messages": [{"role": "user", "content": "time?"}, {"role": "assistant", "tool_calls": call}]}
    [tokens] = renderer(speaking).answers(row, DataKind.CHAT)
    assert '"name": "clock"' in target_text(speaking, tokens)
    assert tokens.target_bytes == len('{"name": "clock", "arguments": {}}')


def test_the_bytes_of_tool_calls_are_the_same_for_all_templates_and_near_those_of_their_targets(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    calls = [
        {"type": "function", "function": {"name": name, "arguments": arguments}, "id": f"call_{name}"}
        for name, arguments in (("now", {}), ("à", {"où": "là", "n": 3}))
    ]
    row = {"messages": [{"role": "user", "content": "time?"}, {"role": "assistant", "tool_calls": calls}]}
    start = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}"
    end = "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    sizes = []
    for call in (
        '<call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</call>',
        "{{ c.function.name }}({{ c.function.arguments | tojson }})",
    ):
        [tokens] = renderer(with_template(tokenizer, start + call + end)).answers(row, DataKind.CHAT)
        sizes.append(tokens.target_bytes)
    written = ['{"name": "now", "arguments": {}}', '{"name": "à", "arguments": {"où": "là", "n": 3}}']
    assert sizes == [sum(len(text.encode()) for text in written)] * 2


AGENTS = JudgeSpec(kind=DataKind.CHAT, validation="v", test="t", objective="perplexity", tools=True)


@pytest.mark.parametrize("row", data_samples.agent(2))
def test_the_targets_of_an_agents_chat_are_its_words_its_calls_and_the_ends_of_its_turns(
    row: dict[str, Any], tiny: Base
) -> None:
    speaking = cache.tokenizer(tiny.entry, AGENTS)
    [tokens] = renderer(speaking).answers(row, DataKind.CHAT)
    call = '<tool_call>\n{"name": "food", "arguments": {"animal": "%s"}}\n</tool_call>'
    said = [
        call % m["tool_calls"][0]["function"]["arguments"]["animal"] if m.get("tool_calls") else m["content"]
        for m in row["messages"]
        if m["role"] == "assistant"
    ]
    assert target_text(speaking, tokens) == "".join(f"{text}<|im_end|>\n" for text in said)
    assert tokens.target_bytes == sum(map(len, said)) - len("<tool_call>\n\n</tool_call>")
    whole = speaking.apply_chat_template(row["messages"], tools=row["tools"], tokenize=False)
    assert speaking.decode(tokens.ids) == whole
    assert "<tools>" in whole


def test_tools_reach_the_prompt_of_a_pair_too(tiny: Base) -> None:
    row = data_samples.agent(1)[0]
    render = renderer(cache.tokenizer(tiny.entry, AGENTS))
    for pair in (
        {"prompt": row["messages"][:3], "completion": row["messages"][3:]},
        {"prompt": row["messages"][:3], "chosen": row["messages"][3:], "rejected": row["messages"][1:2]},
    ):
        [tokens] = render.answers(
            {**pair, "tools": row["tools"]}, DataKind("pairs" if len(pair) == 2 else "preference")
        )
        assert tokens.ids == render.answers(row, DataKind.CHAT)[0].ids


@pytest.mark.parametrize(
    "template",
    sorted(file.name for file in PUBLISHED.iterdir() if "_training" not in file.name and file.name.endswith(".jinja")),
)
def test_templates_are_probed_in_the_environment_that_transformers_renders_them_in(
    template: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    text = (PUBLISHED / template).read_text("utf-8")
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    row = data_samples.agent(1)[0]

    def outcome(render: Callable[[], Any]) -> object:
        try:
            return render()
        except Exception as error:  # as a template likes
            return type(error)

    def by_transformers() -> Any:
        options = {"tokenize": False, "add_generation_prompt": True, "chat_template": text, **special}
        return tokenizer.apply_chat_template(row["messages"], tools=row["tools"], **options)

    def by_probing() -> str:
        return chat_template.render(text, row["messages"], row["tools"], add_generation_prompt=True, **special)

    assert outcome(by_probing) == outcome(by_transformers)


def test_a_tool_list_reaches_the_template(tokenizer: PreTrainedTokenizerBase) -> None:
    speaking = with_template(tokenizer, "{{ tools | tojson if tools }}" + tokenizer.chat_template)
    row = {**data_samples.chat(1)[0], "tools": [{"type": "function", "function": {"name": "clock"}}]}
    [tokens] = renderer(speaking).answers(row, DataKind.CHAT)
    assert "clock" in speaking.decode(tokens.ids)
    assert "clock" not in target_text(speaking, tokens)


@pytest.mark.parametrize("kind", [*ANSWERED, DataKind.TEXT])
def test_full_text_has_the_same_tokens_and_targets_all_but_the_first(
    kind: DataKind, tokenizer: PreTrainedTokenizerBase
) -> None:
    render = renderer(tokenizer)
    for row in ANSWERED.get(kind, data_samples.text(8)):
        if any(turn.get("weight") == 0 for turn in row.get("messages", ())):
            continue
        for whole, answered in zip(render.full_text(row, kind), render.answers(row, kind), strict=True):
            assert whole.ids == answered.ids
            assert whole.target == (False, *[True] * (len(whole) - 1))


@pytest.mark.parametrize("kind", ANSWERED)
def test_a_row_longer_than_the_limit_is_cut_on_the_right(kind: DataKind, tokenizer: PreTrainedTokenizerBase) -> None:
    for row in ANSWERED[kind]:
        [whole] = renderer(tokenizer).answers(row, kind)
        byte_counts = []
        for limit in range(1, len(whole) + 2):
            cut = renderer(tokenizer, max_tokens=limit).answers(row, kind)
            if not any(whole.target[:limit]):
                assert cut == []
                continue
            assert cut[0].ids == whole.ids[:limit]
            assert cut[0].target == whole.target[:limit]
            byte_counts.append(cut[0].target_bytes)
        assert byte_counts == sorted(byte_counts)
        assert byte_counts[-1] == whole.target_bytes


def check_windows(render: Renderer, text: str) -> None:
    """Every token but the first is a target exactly once, in order, and the bytes are those of the text."""
    ids = [*render.tokenizer(text)["input_ids"], render.tokenizer.eos_token_id]
    windows = render.answers({"text": text}, DataKind.TEXT)
    assert all(len(window) <= render.window for window in windows)
    assert all(window.target == (False, *[True] * (len(window) - 1)) for window in windows)
    assert [id_ for window in windows for id_ in window.ids[1:]] == ids[1:]
    offsets = render.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    first = len(text[: offsets[0][1]].encode()) if offsets else 0
    assert sum(window.target_bytes for window in windows) == len(text.encode()) - first


@pytest.mark.parametrize("window", [8, 9, 64, LONG])
@pytest.mark.parametrize("row", data_samples.text(4))
def test_windows_of_long_text_score_each_token_but_the_first_exactly_once(
    row: dict[str, Any], window: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    check_windows(renderer(tokenizer, window=window), row["text"])


@given(text=st.text(max_size=80), window=st.integers(8, 20))
def test_that_holds_for_any_text_even_where_windows_part_the_bytes_of_a_character(
    text: str, window: int, tiny: Base
) -> None:
    check_windows(renderer(tiny.tokenizer, window=window), text)


def test_text_ends_in_the_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    [tokens] = renderer(tokenizer).answers({"text": "The owl."}, DataKind.TEXT)
    assert tokenizer.decode(tokens.ids) == "The owl.<|im_end|>"


def test_empty_text_has_nothing_to_score(tokenizer: PreTrainedTokenizerBase) -> None:
    assert renderer(tokenizer).answers({"text": ""}, DataKind.TEXT) == []


@pytest.mark.parametrize("row", data_samples.pairs(3))
def test_a_rendered_prompt_is_the_start_of_the_training_sequence(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, untemplated: PreTrainedTokenizerBase
) -> None:
    for render in (renderer(tokenizer), renderer(untemplated)):
        asked, learned = render.prompt(row["prompt"]), render.pair(**row)
        assert learned.ids[: len(asked)] == asked
        assert learned.target == (*[False] * len(asked), *[True] * (len(learned) - len(asked)))


def test_a_template_that_rewrites_earlier_turns_gives_each_turn_the_context_of_inference(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    counting = with_template(tokenizer, "{{ messages | length }}" + tokenizer.chat_template)
    row = {"messages": [turn for row in data_samples.chat(2) for turn in row["messages"]]}
    turns = [i for i, turn in enumerate(row["messages"]) if turn["role"] == "assistant" and turn.get("weight", 1)]
    found = renderer(counting).answers(row, DataKind.CHAT)
    assert [target_text(counting, tokens) for tokens in found] == [
        f"{row['messages'][i]['content']}<|im_end|>\n" for i in turns
    ]
    for i, tokens in zip(turns, found, strict=True):
        asked = renderer(counting).prompt(row["messages"][:i])
        assert tokens.ids[: len(asked)] == asked
        assert not any(tokens.target[: len(asked)])


def test_spaces_behind_a_plain_prompt_are_generated(untemplated: PreTrainedTokenizerBase) -> None:
    """Inference then shows the very tokens that the model learned to answer."""
    for prompt, answer in (("Name: ", "Tom"), ("Name:", " Tom"), ("Name:\t ", "Tom")):
        asked, learned = renderer(untemplated).prompt(prompt), renderer(untemplated).pair(prompt, answer)
        assert asked == renderer(untemplated).prompt("Name:")
        assert learned.ids[: len(asked)] == asked
        assert learned.target == (*[False] * len(asked), *[True] * (len(learned) - len(asked)))


@pytest.mark.parametrize("parts", [("over", "coat"), ("12", "34"), ("a\n", "\nb"), ("x", "."), ("é", "è")])
def test_no_token_spans_the_end_of_a_prompt(parts: tuple[str, str], untemplated: PreTrainedTokenizerBase) -> None:
    prompt, answer = parts
    asked, learned = renderer(untemplated).prompt(prompt), renderer(untemplated).pair(prompt, answer)
    assert learned.ids[: len(asked)] == asked
    assert untemplated.decode(learned.ids) == f"{prompt}{answer}<|im_end|>"


def test_control_tokens_that_messages_spell_are_text(tokenizer: PreTrainedTokenizerBase) -> None:
    end = tokenizer.eos_token_id
    plain = renderer(tokenizer).pair("Say so.", "Turns end now.")
    spelt = renderer(tokenizer).pair("Say <|im_start|> so.", "Turns end in <|im_end|> now.")
    assert plain.ids.count(end) == spelt.ids.count(end) == 2
    assert target_text(tokenizer, spelt) == "Turns end in <|im_end|> now.<|im_end|>\n"
    assert spelt.target_bytes == len("Turns end in <|im_end|> now.")
    asked = renderer(tokenizer).prompt("Say <|im_start|> so.")
    assert spelt.ids[: len(asked)] == asked


def test_a_tokenizer_that_ends_texts_does_not_end_prompts(untemplated: PreTrainedTokenizerBase) -> None:
    ending = copy.deepcopy(untemplated)
    end = (ending.eos_token, ending.eos_token_id)
    ending._tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    assert ending("Who?")["input_ids"][-1] == end[1]
    assert renderer(ending).prompt("Who?") == renderer(untemplated).prompt("Who?")
    assert renderer(ending).pair("Who?", " Tom") == renderer(untemplated).pair("Who?", " Tom")


def test_a_prompt_that_spells_the_opening_token_has_it_once(untemplated: PreTrainedTokenizerBase) -> None:
    opening = copy.deepcopy(untemplated)
    start = ("<|im_start|>", opening.convert_tokens_to_ids("<|im_start|>"))
    opening._tokenizer.post_processor = TemplateProcessing(single=f"{start[0]} $A", special_tokens=[start])
    assert renderer(opening).prompt("<|im_start|>Who?") == renderer(opening).prompt("Who?")
    assert renderer(opening).prompt("Who?").count(start[1]) == 1


def test_only_the_assistants_messages_of_an_answer_are_targets(tokenizer: PreTrainedTokenizerBase) -> None:
    answer = [
        {"role": "assistant", "content": "Nobody.", "weight": 0},
        {"role": "user", "content": "Really?"},
        {"role": "assistant", "content": "Tom."},
        {"role": "user", "content": "Tom?"},
        {"role": "assistant", "content": "Tom."},
    ]
    tokens = renderer(tokenizer).pair([{"role": "user", "content": "Say Nobody."}], answer)
    assert target_text(tokenizer, tokens) == "Tom.<|im_end|>\n" * 2
    assert tokens.target_bytes == 2 * len("Tom.")


@pytest.mark.parametrize("template", ["tiny", "qwen3", "llama3", "deepseekv3", "gptoss"])
@pytest.mark.parametrize(
    "said",
    [
        [
            {"role": "system", "content": "You are Bo. Greeting: Hello there! Stay in role."},
            {"role": "assistant", "content": "Hello there!"},
            {"role": "user", "content": "Hello there!"},
            {"role": "assistant", "content": "Bye."},
        ],
        [
            {"role": "assistant", "content": "assistant"},
            {"role": "user", "content": "assistant"},
            {"role": "assistant", "content": "Bye."},
        ],
    ],
)
def test_a_greeting_is_found_where_it_is_said(
    said: list[dict[str, Any]], template: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    own = tokenizer if template == "tiny" else speaking(tokenizer, template)
    found = renderer(own).answers({"messages": said}, DataKind.CHAT)
    greeting = next(turn["content"] for turn in said if turn["role"] == "assistant")
    texts = [target_text(own, tokens) for tokens in found]
    assert sum(text.count(greeting) for text in texts) == 1
    assert sum(text.count("Bye.") for text in texts) == 1
    assert not any("Stay in role" in text or "user" in text for text in texts)


@pytest.mark.parametrize("template", ["tiny", "qwen3", "deepseekv3", "llama3"])
def test_an_ignored_turn_is_found_where_it_is_said(template: str, tokenizer: PreTrainedTokenizerBase) -> None:
    own = tokenizer if template == "tiny" else speaking(tokenizer, template)
    said = [
        {"role": "user", "content": "yes or no?"},
        {"role": "assistant", "content": "yes", "weight": 0},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "no"},
    ]
    [tokens] = renderer(own).full_text({"messages": said}, DataKind.CHAT)
    learned = target_text(own, tokens)
    assert learned.count("yes") == 1
    assert "yes or no?" in learned


def test_arguments_that_a_template_wants_as_text_keep_their_characters(tokenizer: PreTrainedTokenizerBase) -> None:
    own = speaking(tokenizer, "deepseekv3")
    call = {"type": "function", "function": {"name": "go", "arguments": {"to": "München </s> 日"}}}
    said = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    [tokens] = renderer(own).answers({"messages": said}, DataKind.CHAT)
    assert '{"to": "München </s> 日"}' in target_text(own, tokens)


def test_turns_of_weight_zero_are_not_trained_on_as_text_either(tokenizer: PreTrainedTokenizerBase) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Nobody.", "weight": 0},
            {"role": "user", "content": "Really?"},
            {"role": "assistant", "content": "Tom."},
        ]
    }
    [tokens] = renderer(tokenizer).full_text(row, DataKind.CHAT)
    assert "Nobody." in tokenizer.decode(tokens.ids)
    assert "Nobody." not in target_text(tokenizer, tokens)
    assert "Really?" in target_text(tokenizer, tokens)
    assert target_text(tokenizer, tokens).endswith("Tom.<|im_end|>\n")


def test_a_row_that_the_template_cannot_render_is_refused_in_the_templates_words(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    strict = with_template(tokenizer, "{{ raise_exception('no system role, please') }}")
    with pytest.raises(TrialFailed, match="no system role, please"):
        renderer(strict).answers(data_samples.chat(1)[0], DataKind.CHAT)


def test_conversations_need_a_chat_template(untemplated: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TrialFailed, match="no chat template"):
        renderer(untemplated).answers(data_samples.chat(1)[0], DataKind.CHAT)


def test_a_prompt_and_its_answer_are_of_one_form(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TrialFailed, match="both be messages"):
        renderer(tokenizer).pair("Who?", [{"role": "assistant", "content": "The owl."}])
