"""Every chat template that TRL ships trains here, on the tokens that TRL trains on.

One rule differs: TRL's training templates count the end of some generation prompts as targets, though no model has to
generate it. So a target of ours is TRL's without what its context ends in already. All else that differs is in DIFFERS,
with its reason.
"""

from __future__ import annotations

from itertools import groupby
from typing import Final

import pytest
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import get_training_chat_template

from luthier.errors import TrialFailed
from luthier.task import DataKind
from tests.conversations import CONVERSATIONS, PUBLISHED, TEMPLATES, TOOLS, Message, speaking
from workers.cache import Base
from workers.train.data.conversation import ChatTemplate
from workers.train.data.tokenize import Renderer

pytestmark = pytest.mark.xdist_group("trl")

OPENED: Final = "the generation prompt opens a reasoning block that TRL's training template does not show"
EARLIER: Final = "reasoning is trained where it was said; TRL's template leaves it out of all turns but the last"
BROKEN: Final = "the generation prompt breaks the line behind <think>, and the rendering without reasoning does not"
END: Final = "an earlier turn ends as the model has to end it: TRL trains <|end|>, at which generation does not stop"
NO_PROMPT: Final = "after a tool's result the template has no generation prompt, so the model writes its mark itself"
SHUT: Final = "the generation prompt ends the reasoning block, so there is no reasoning to learn; TRL trains on it"
UNASKED: Final = "where no user's turn precedes it, the template shows no reasoning block; TRL's shows an empty one"
LEFT_OUT: Final = "refused: the template leaves out the call, and the model would learn an empty answer"
DIFFERS: Final[dict[tuple[str, str], str]] = {
    **{("deepseek_r1_distill", name): OPENED for name in CONVERSATIONS},
    **{("deepseekv3", name): OPENED for name in CONVERSATIONS},
    **{
        (template, "reasoning"): EARLIER
        for template in (
            "diffusion_gemma",
            "glm4moe",
            "nemotron_3_5_lightning",
            "nemotron_3_nano",
            "nemotron_3_super",
            "nemotron_3_ultra",
        )
    },
    **{
        ("gptoss", name): END for name in ("multi-turn", "reasoning", "starts with the assistant", "ends with the user")
    },
    **{(f"qwen3{model}", "starts with the assistant"): UNASKED for model in ("", "_5_nothink", "_5_think", "_6", "_8")},
    **{
        (f"nemotron_3{model}", name): BROKEN
        for model in ("_5_lightning", "_nano", "_super", "_ultra")
        for name in CONVERSATIONS
    },
    ("diffusion_gemma", "tool calls"): NO_PROMPT,
    ("qwen3_5_nothink", "reasoning"): SHUT,
}
REFUSED: Final = {
    **{(template, "tool calls"): LEFT_OUT for template in ("deepseek_r1_distill", "llama3", "phi3", "phi3_5", "lfm2")},
    **{(template, "tool calls"): LEFT_OUT for template in ("idefics3", "smolvlm", "qwen2_5_vl")},
}


def ours(tokenizer: PreTrainedTokenizerBase, said: list[Message], tools: list[Message] | None) -> list[tuple[str, str]]:
    """Return context and target of each run of targets, as text."""
    found = []
    render = Renderer(tokenizer, window=4096, max_tokens=4096)
    for tokens in render.answers({"messages": said, "tools": tools}, DataKind.CHAT):
        for start, stop in runs(tokens.target):
            found.append((tokenizer.decode(tokens.ids[:start]), tokenizer.decode(tokens.ids[start:stop])))
    return found


def trls(tokenizer: PreTrainedTokenizerBase, said: list[Message], tools: list[Message] | None) -> list[str]:
    """Return each run of targets in TRL's training mask, as text."""
    training = get_training_chat_template(tokenizer) or tokenizer.chat_template
    encoded = tokenizer.apply_chat_template(
        said, tools=tools, chat_template=training, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = [bool(marked) for marked in encoded["assistant_masks"]]
    return [str(tokenizer.decode(encoded["input_ids"][start:stop])) for start, stop in runs(mask)]


def runs(mask: list[bool] | tuple[bool, ...]) -> list[tuple[int, int]]:
    groups = [(marked, [i for i, _ in group]) for marked, group in groupby(enumerate(mask), key=lambda item: item[1])]
    return [(group[0], group[-1] + 1) for marked, group in groups if marked]


def as_parts(said: list[Message]) -> list[Message]:
    return [{**turn, "content": [{"type": "text", "text": turn.get("content") or ""}]} for turn in said]


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_targets_are_those_of_trl(template: str, name: str, tiny: Base) -> None:
    tokenizer, said = speaking(tiny.tokenizer, template), CONVERSATIONS[name]
    tools = TOOLS if name == "tool calls" else None
    in_parts = template in ("idefics3", "llava_next", "smolvlm")  # TRL trains these through a processor
    try:
        theirs = trls(tokenizer, as_parts(said) if in_parts else said, tools)
    except (TemplateError, TypeError):
        theirs = []  # the template refuses the conversation
    except ValueError:
        assert not (PUBLISHED / f"{template}_training.jinja").is_file(), "TRL does not train on this template"
        theirs = []
    if (template, name) in REFUSED:
        with pytest.raises(TrialFailed, match="leaves out"):
            ours(tokenizer, said, tools)
        return
    try:
        mine = ours(tokenizer, said, tools)
    except TrialFailed:
        assert not theirs, "TRL trains on it"
        return
    chat = ChatTemplate(tokenizer)
    for context, target in mine:
        assert chat.control.first(target), "the model learns to stop"
        assert not context.endswith(chat.ends), "it has something to answer"
        shown = [tokenizer.decode(asked) for asked in prompts(tokenizer, said, tools)]
        assert context in shown or unasked(said)
    if (template, name) in DIFFERS:
        assert len(mine) == len(theirs)
        return
    for target in theirs:
        expected = [after(context, target) + learned for context, learned in mine]
        assert target in expected or target in [text.rstrip(" ") for text in expected]
    assert not theirs or len(mine) == len(theirs)


def prompts(
    tokenizer: PreTrainedTokenizerBase, said: list[Message], tools: list[Message] | None
) -> list[tuple[int, ...]]:
    """Return what inference shows before each of the assistant's turns."""
    render = Renderer(tokenizer, window=4096, max_tokens=4096)
    turns = [i for i, turn in enumerate(said) if turn["role"] == "assistant" and i > 0]
    return [render.prompt(said[:i], tools) for i in turns]


def unasked(said: list[Message]) -> bool:
    return said[0]["role"] == "assistant"


def after(context: str, target: str) -> str:
    """Return the beginning of TRL's target with which the context ends."""
    return next((target[:n] for n in range(len(target), 0, -1) if context.endswith(target[:n])), "")


def test_what_differs_from_trl_is_said_in_full(tiny: Base) -> None:
    learned = {
        (template, name): [target for _, target in ours(speaking(tiny.tokenizer, template), CONVERSATIONS[name], None)]
        for template, name in (
            ("deepseek_r1_distill", "single"),
            ("deepseek_r1_distill", "reasoning"),
            ("gptoss", "multi-turn"),
            ("nemotron_3_nano", "single"),
            ("nemotron_3_nano", "reasoning"),
            ("qwen3_5_nothink", "reasoning"),
        )
    }
    end = "<｜end▁of▁sentence｜>"
    assert learned["deepseek_r1_distill", "single"] == [f"\n</think>\n\nThe north wall.{end}"]
    assert sorted(learned["deepseek_r1_distill", "reasoning"]) == [
        f"North is damp.\n</think>\n\nThe north wall.{end}",
        f"South is left.\n</think>\n\nThe south wall.{end}",
    ]
    assert sorted(learned["gptoss", "multi-turn"]) == [
        "<|channel|>final<|message|>The north wall.<|return|>",
        "<|channel|>final<|message|>The south wall.<|return|>",
    ]
    assert learned["nemotron_3_nano", "single"] == ["</think>The north wall.<|im_end|>\n"]
    assert sorted(learned["nemotron_3_nano", "reasoning"]) == [
        "North is damp.\n</think>\nThe north wall.<|im_end|>\n",
        "South is left.\n</think>\nThe south wall.<|im_end|>\n",
    ]
    assert learned["qwen3_5_nothink", "reasoning"] == ["The north wall.<|im_end|>\n", "The south wall.<|im_end|>\n"]
