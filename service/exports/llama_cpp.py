"""A trial's model for llama.cpp and Ollama: the GGUF file, a Modelfile, a README and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from luthier.blobs import Blobs
from service.exports.gguf import GgufFile
from service.exports.modelfile import WEIGHTS
from service.exports.tar_stream import Entry, of_blob, of_text

CARD, RECORD = "README.md", "luthier.json"  # of the merged model


def portable(blobs: Blobs, files: Mapping[str, str], name: str) -> list[Entry]:
    """Return the files to send for a merged model with these files (path → digest). Raises UserError if GGUF cannot
    represent it."""
    weights = GgufFile(blobs, files, name)
    readme = _PAGES.get_template("gguf.md.jinja").render(name=name, weights=WEIGHTS, card="MODEL_CARD.md")
    kept = {"MODEL_CARD.md": CARD, RECORD: RECORD}
    return [
        Entry(path=WEIGHTS, size=weights.bytes, content=weights),
        of_text("Modelfile", weights.tokenizer.modelfile),
        of_text("README.md", readme),
        *(of_blob(blobs, path, files[source]) for path, source in kept.items() if source in files),
    ]


_PAGES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown
)
