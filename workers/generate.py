"""One greedy answer of an exported model: `python -P -m workers.generate FOLDER PROMPT`.

FOLDER is a merged model or an adapter as the export writes it; an adapter's base model is loaded from where it was
registered. The prompt goes through the tokenizer's chat template where there is
one, and stands as it is where there is none: the same prompt and the same decoding as the judge's.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from peft import PeftModelForCausalLM

from luthier.dataset.messages import Message
from luthier.errors import LuthierError, UserError
from luthier.model import BaseModelEntry, read_facts
from workers import warm
from workers.export import ADAPTER_CONFIG, RECORD
from workers.sampling import generate
from workers.train.data.rendering import Renderer
from workers.train.forward import CausalModel


def answer(folder: Path, prompt: str, *, system: str | None, max_new_tokens: int) -> str:
    """Load the model, answer once. Raises UserError for a folder without a model, for an encoder, or for a system
    text without a template to put it in."""
    adapter = (folder / ADAPTER_CONFIG).is_file()
    entry = _base_of(folder) if adapter else _whole(folder)
    if entry.facts.family == "encoder":
        raise UserError(
            f"{entry.facts.architecture} is an encoder: it fills masked tokens and does not answer; "
            'load it with transformers\' pipeline("fill-mask")'
        )
    exported = warm.base(entry)
    model: CausalModel = PeftModelForCausalLM.from_pretrained(exported.model, folder) if adapter else exported.model
    context = exported.entry.facts.context
    if system is not None and not exported.tokenizer.chat_template:
        raise UserError("this model has no chat template, so there is no place for a system text", param="system")
    messages: list[Message] = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    render = Renderer(exported.tokenizer, window=context, max_tokens=context)
    ids = render.prompt(prompt if system is None else messages)[-context:]
    torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() else "cpu")
    return generate(model.eval(), exported.tokenizer, [ids], max_new_tokens)[0]


def _whole(folder: Path) -> BaseModelEntry:
    return BaseModelEntry(name="exported", source=str(folder), facts=read_facts(folder))


def _base_of(folder: Path) -> BaseModelEntry:
    """The base model that an exported adapter is for."""
    return BaseModelEntry.model_validate(json.loads((folder / RECORD).read_text("utf-8"))["base"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m workers.generate", description=__doc__)
    parser.add_argument("folder", type=Path, help="a merged model, or an adapter")
    parser.add_argument("prompt")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="default: %(default)s")
    parser.add_argument("--system", metavar="TEXT", help="a system message before the prompt")
    options = parser.parse_args(arguments)
    if options.max_new_tokens < 1:
        parser.error("--max-new-tokens must be at least 1")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        print(answer(options.folder, options.prompt, system=options.system, max_new_tokens=options.max_new_tokens))
    except LuthierError as error:
        print(error.message, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
