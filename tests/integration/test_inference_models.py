"""Generated answers: as the judge renders prompts, sampled or greedy, from bases, adapters and merged models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, OFTConfig, PeftConfig, PromptTuningConfig, VeraConfig, get_peft_model

from luthier.errors import UserError
from luthier.models.base_model import BaseModelEntry
from luthier.worker_protocol import Answered, Question, Weights
from tests.conftest import TINY
from workers import cache
from workers.cache import Base
from workers.export.artifacts import RECORD
from workers.inference.detokenize import StreamDecoder
from workers.inference.generate import answer, prompt_ids
from workers.inference.models import Loaded, Models
from workers.train.data.tokenize import Renderer
from workers.train.rollouts.sampling import generate

HELLO = {"role": "user", "content": "How are you?"}
ADAPTERS = {
    "lora": LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM"),
    "ia3": IA3Config(init_ia3_weights=False, task_type="CAUSAL_LM"),
    "oft": OFTConfig(oft_block_size=8, r=0, init_weights=False, task_type="CAUSAL_LM"),
    "vera": VeraConfig(r=8, init_weights=False, d_initial=0.5, task_type="CAUSAL_LM", target_modules=["q_proj"]),
    "prompt": PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
}


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    """One for all tests: what one of them leaves in memory, the next must not notice."""
    yield Models(torch.device("cpu"))
    cache.base.cache_clear()  # they are its own


def asked(**fields: Any) -> Question:
    about = {} if "prompt" in fields else {"messages": (HELLO,)}
    return Question(**{"model": "tiny", "weights": Weights(), "temperature": 0.0, "max_tokens": 12, **about, **fields})


def said(loaded: Loaded, **fields: Any) -> tuple[str, Answered]:
    pieces: list[str] = []
    end = answer(loaded, asked(**fields), pieces.append, lambda: False)
    assert all(pieces), "nothing is said without a word"
    return "".join(pieces), end


def test_the_greedy_answer_is_the_judge_s(models: Models, tiny: Base, tiny_entry: BaseModelEntry) -> None:
    loaded = models.load(tiny_entry, None)
    system = {"role": "system", "content": "You like cats."}
    found = []
    for messages in ((HELLO,), (system, HELLO)):
        ids = Renderer(tiny.tokenizer, window=64, max_tokens=64).prompt(messages)
        text, end = said(loaded, messages=messages)
        assert text.strip() == generate(tiny.model, tiny.tokenizer, [ids], 12)[0] != ""
        assert end.prompt_tokens == len(ids)
        assert (end.completion_tokens == 12) == (end.finish_reason == "length")
        found.append(text)
    assert found[0] != found[1], "a system text stands before the prompt"


def test_a_text_goes_on_as_it_stands(models: Models, tiny: Base, tiny_entry: BaseModelEntry) -> None:
    loaded = models.load(tiny_entry, None)
    text, end = said(loaded, prompt="How are")
    ids = tiny.tokenizer("How are")["input_ids"]
    assert end.prompt_tokens == len(ids) < len(prompt_ids(loaded, asked()))
    assert text.strip() == generate(tiny.model, tiny.tokenizer, [ids], 12)[0]


def test_draws_depend_on_the_seed_the_temperature_and_the_share(models: Models, tiny_entry: BaseModelEntry) -> None:
    loaded = models.load(tiny_entry, None)
    drawn = said(loaded, temperature=1.0, seed=3)
    assert said(loaded, temperature=1.0, seed=3) == drawn
    assert len({said(loaded, temperature=1.0, seed=seed)[0] for seed in range(4)}) > 2
    assert len({said(loaded, temperature=2.0)[0] for _ in range(4)}) > 1, "without a seed each is another"
    greedy = said(loaded)
    assert said(loaded, temperature=1e-9, seed=1) == greedy
    assert said(loaded, temperature=1.0, top_p=0.0, seed=1) == greedy
    assert said(loaded, temperature=1.0, top_p=1e-6, seed=1) == greedy
    assert drawn != greedy


def test_an_answer_ends_at_a_stop_sequence_at_its_end_token_or_when_it_is_cancelled(
    models: Models, tiny_entry: BaseModelEntry
) -> None:
    loaded = models.load(tiny_entry, None)
    whole, _ = said(loaded, max_tokens=40)
    stop = whole[9:14]
    text, end = said(loaded, max_tokens=40, stop=(stop, "never said"))
    assert (text, end.finish_reason) == (whole[: whole.index(stop)], "stop")
    own, end = said(loaded, max_tokens=None, temperature=1.0, seed=0)
    assert end.finish_reason == "stop"
    assert "<|im_end|>" not in own

    pieces: list[str] = []
    end = answer(loaded, asked(max_tokens=40), pieces.append, lambda: len(pieces) >= 2)
    assert end.completion_tokens < 40
    assert whole.startswith("".join(pieces))


def test_questions_that_a_model_cannot_answer_are_refused(
    models: Models, tiny_entry: BaseModelEntry, encoder_entry: BaseModelEntry
) -> None:
    loaded = models.load(tiny_entry, None)
    context = tiny_entry.facts.context
    with pytest.raises(UserError, match=f"{context + 1} tokens.*tiny.*{context} tokens") as refused:
        said(loaded, prompt=" I" * (context + 1))
    assert refused.value.param == "prompt"
    _, end = said(loaded, prompt=" I" * (context - 3), max_tokens=9)
    assert end.completion_tokens <= 3
    with pytest.raises(UserError, match="encoder") as refused:
        models.load(encoder_entry, None)
    assert refused.value.param == "model"


def test_a_model_without_a_template_answers_one_message_as_it_stands(
    models: Models, tiny: Base, tmp_path: Path
) -> None:
    folder = shutil.copytree(TINY, tmp_path / "plain")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = models.load(None, folder)
    assert prompt_ids(loaded, asked()) == tiny.tokenizer("How are you?")["input_ids"]
    with pytest.raises(UserError, match="no chat template") as refused:
        said(loaded, messages=(HELLO, {"role": "assistant", "content": "Well."}, HELLO))
    assert refused.value.param == "messages"


def test_adapters_take_turns_on_a_base_that_stays_as_it_was(
    models: Models, tiny: Base, tiny_entry: BaseModelEntry, tmp_path: Path
) -> None:
    alone = said(models.load(tiny_entry, None))
    base = models.load(tiny_entry, None).model
    folders = {name: export(config, tmp_path / name, tiny_entry) for name, config in ADAPTERS.items()}
    expected = {name: logits(peft) for name, (_, peft) in folders.items()}
    ids = prompt_ids(models.load(tiny_entry, None), asked())
    answers = {name: generate(peft, tiny.tokenizer, [ids], 12)[0] for name, (_, peft) in folders.items()}
    for _ in range(2):
        for name, (folder, _) in folders.items():
            loaded = models.load(None, folder)
            torch.testing.assert_close(logits(loaded.model), expected[name])
            assert said(loaded)[0].strip() == answers[name], "the judge's, virtual tokens or not"
            assert models.load(None, folder).model is loaded.model, "it is put on once"
        assert said(models.load(tiny_entry, None)) == alone
    assert models.load(tiny_entry, None).model is base, "it was loaded once"
    others = [expected[name] for name in ADAPTERS]
    assert not any(torch.equal(one, other) for i, one in enumerate(others) for other in others[:i])


def test_streamed_text_is_the_text_of_the_tokens_in_whole_characters(tiny: Base) -> None:
    text = "Größe 🙂🙂 naïve — “so”,\n\n  and   more… 漢字"
    ids = tiny.tokenizer(text)["input_ids"]
    decoder = StreamDecoder(tiny.tokenizer, ())
    pieces = [decoder.push(token) for token in ids]
    assert "".join([*pieces, decoder.end()]) == tiny.tokenizer.decode(ids, skip_special_tokens=True)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    broken = StreamDecoder(tiny.tokenizer, ())
    smile = tiny.tokenizer("🙂")["input_ids"]
    assert [broken.push(token) for token in smile[:-1]] == [""] * (len(smile) - 1)
    assert broken.end() == tiny.tokenizer.decode(smile[:-1])


@pytest.mark.parametrize(
    ("stop", "expected"),
    [(("owl", "pond"), "The "), ((" eats x", "eats f"), "The owl "), (("fish!", "zz"), "The owl eats fish")],
)
def test_no_part_of_a_stop_sequence_is_streamed_and_nothing_else_is_withheld(
    stop: tuple[str, ...], expected: str, tiny: Base
) -> None:
    decoder = StreamDecoder(tiny.tokenizer, stop)
    pieces = [decoder.push(token) for token in tiny.tokenizer("The owl eats fish")["input_ids"]]
    assert "".join([*pieces, decoder.end()]) == expected


def export(config: PeftConfig, folder: Path, entry: BaseModelEntry) -> tuple[Path, Any]:
    """An adapter as the export writes it, and the model that it makes."""
    torch.manual_seed(len(str(folder)))
    made = get_peft_model(cache._load(entry), config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.requires_grad and "prompt" not in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    for file in TINY.glob("*token*"):
        shutil.copy(file, folder)
    for file in TINY.glob("*.jinja"):
        shutil.copy(file, folder)
    (folder / RECORD).write_text(json.dumps({"base": entry.model_dump(mode="json")}))
    return folder, made.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    return found
