"""Translate a tokenizer.json to GGUF. Only byte-level BPE is supported.

llama.cpp implements the pre-tokenizer, which splits text before the merges, and a name in the file selects it. Only
pre-tokenizers with such a name can be exported: with another one the model would read other tokens than in training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import gguf
from pydantic import Field
from tokenizers import Tokenizer

from luthier.errors import UserError
from luthier.values import Frozen

_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Steps of the pre-tokenizer → llama.cpp's name for it.
SPLITS: Final[Mapping[tuple[str, ...], str]] = {
    ("bytes and words",): "gpt-2",
    ("single digits", "bytes and words"): "smollm",
    (_WORDS % "{1,3}", "bytes"): "llama-bpe",
    (_WORDS % "", "bytes"): "qwen2",
}
# Only with this pre-tokenizer does llama.cpp look up whole words before it merges (`ignore_merges`).
_WHOLE_PIECES: Final = "llama-bpe"
_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "pad_token")


class Vocabulary(Frozen):
    """A tokenizer as llama.cpp needs it."""

    split: str = Field(description="llama.cpp's name of the pre-tokenizer")
    tokens: tuple[str, ...] = Field(description="by id")
    types: tuple[int, ...] = Field(description="gguf.TokenType of each")
    merges: tuple[str, ...]
    special: dict[str, int] = Field(description="`bos_token` and so on → id")
    adds_bos: bool
    adds_eos: bool
    chat_template: str | None
    ends: tuple[int, ...] = Field(default=(), description="ids of the tokens that end an answer, besides `eos_token`")

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts of all tokens at which generation stops."""
        named = (self.token("eos_token"), *(self.tokens[number] for number in self.ends))
        return tuple(dict.fromkeys(token for token in named if token))

    def token(self, name: str) -> str:
        """Return the text of a special token; empty where there is none."""
        return self.tokens[self.special[name]] if name in self.special else ""


def read(
    tokenizer: str, config: Mapping[str, Any], template: str | None, size: int, ends: Sequence[int] = ()
) -> Vocabulary:
    """Return the vocabulary from the contents of tokenizer.json and tokenizer_config.json, and the chat template.

    `size`: the model's vocabulary size. `ends`: the end tokens of its generation config.

    Raises UserError where llama.cpp would tokenize text differently.
    """
    parsed: dict[str, Any] = json.loads(tokenizer)
    model, added = parsed["model"], parsed.get("added_tokens") or []
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "BPE with byte fallback (SentencePiece's)" if model.get("byte_fallback") else str(model.get("type"))
        raise _refused(f"its tokenizer is {kind}, not byte-level BPE")
    split = SPLITS.get(_steps(parsed.get("pre_tokenizer")))
    if split is None or bool(model.get("ignore_merges")) is not (split == _WHOLE_PIECES):
        raise _refused("llama.cpp does not know its pre-tokenizer")
    by_id = {number: token for token, number in model["vocab"].items()}
    by_id |= {token["id"]: token["content"] for token in added}
    kinds = {token["id"]: "CONTROL" if token["special"] else "USER_DEFINED" for token in added}
    ids = {token: number for number, token in by_id.items()}
    named = {name: ids.get(_content(config.get(name))) for name in _SPECIAL}
    adds_bos, adds_eos = _adds(tokenizer)
    return Vocabulary(
        split=split,
        tokens=tuple(by_id.get(number, f"[PAD{number}]") for number in range(size)),
        types=tuple(
            int(gguf.TokenType[kinds.get(number, "NORMAL" if number in by_id else "UNUSED")]) for number in range(size)
        ),
        merges=tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]),
        special={name: number for name, number in named.items() if number is not None},
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        chat_template=template,
        ends=tuple(number for number in ends if number < size and number != named["eos_token"]),
    )


def write(vocabulary: Vocabulary, writer: gguf.GGUFWriter) -> None:
    """Add the tokenizer to the file's metadata."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    adders = {
        "bos_token": writer.add_bos_token_id,
        "eos_token": writer.add_eos_token_id,
        "unk_token": writer.add_unk_token_id,
        "pad_token": writer.add_pad_token_id,
    }
    for name, number in vocabulary.special.items():
        adders[name](number)
    for number in vocabulary.ends[:1]:  # llama.cpp knows one end of a turn besides the end of a text
        writer.add_eot_token_id(number)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _steps(split: Mapping[str, Any] | None) -> tuple[str, ...]:
    match split:
        case {"type": "Sequence", "pretokenizers": list(parts)}:
            return tuple(step for part in parts for step in _steps(part))
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": bool(words)}:
            return ("bytes and words" if words else "bytes",)
        case {"type": "Digits", "individual_digits": True}:
            return ("single digits",)
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False}:
            return (pattern,)
        case _:
            return ("unknown",)


def _adds(tokenizer: str) -> tuple[bool, bool]:
    """Return whether the tokenizer adds a token before a text, and whether it adds one after it."""
    loaded = Tokenizer.from_str(tokenizer)
    plain, whole = (loaded.encode("a", add_special_tokens=special).ids for special in (False, True))
    return whole[: len(plain)] != plain, whole[-len(plain) :] != plain


def _content(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _refused(why: str) -> UserError:
    return UserError(f"This model cannot be exported as GGUF: {why}. Use format=merged.", param="format")
