"""Read the tokenizer and chat template of an export in a confined child process, which runs this module.

They come from a base model, so neither is parsed or rendered in the process of the service.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.models import confined
from luthier.values import Frozen
from service.exports import gguf_tokenizer
from service.exports.gguf_tokenizer import Vocabulary
from service.exports.modelfile import WEIGHTS, modelfile


class Read(Frozen):
    """The tokenizer for llama.cpp, and the text of the Modelfile for Ollama."""

    vocabulary: Vocabulary
    modelfile: str


def read(tokenizer: str, config: Mapping[str, Any], template: str | None, size: int, ends: Sequence[int] = ()) -> Read:
    """Return what a child makes of the contents of tokenizer.json and tokenizer_config.json, and the chat template.

    `size`: the model's vocabulary size. `ends`: the end tokens of its generation config.

    Raises UserError where llama.cpp would tokenize text differently.
    """
    question = {"tokenizer": tokenizer, "config": dict(config), "template": template, "size": size, "ends": list(ends)}
    return Read.model_validate(confined.ask("service.exports.tokenizer_process", question, param="format"))


def _work(question: dict[str, Any], step: confined.Step) -> dict[str, Any]:
    step("Reading the tokenizer of the export")
    vocabulary = gguf_tokenizer.read(**question)
    step("Rendering the chat template of the export")
    return Read(vocabulary=vocabulary, modelfile=modelfile(vocabulary, WEIGHTS)).model_dump(mode="json")


def main() -> int:
    return confined.answer(_work)


if __name__ == "__main__":
    sys.exit(main())
