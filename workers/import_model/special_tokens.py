"""The special tokens in config.json, and the settings of generation: what is not of their type or range is refused.

This module needs transformers, but not torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from transformers import GenerationConfig

from luthier.models import model_files
from luthier.models.base_model import StandardConfig
from luthier.models.confined import describe
from luthier.models.model_files import refused
from workers.import_model import standard_config

GENERATION: Final = "generation_config.json"
PAD: Final = "pad_token_id"
TOKENS: Final = (PAD, "bos_token_id", "eos_token_id")
NONE: Final = -1  # what older files say for no such token
# Settings of generation that must be numbers, if they are given.
_NUMBERS: Final = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams", "num_return_sequences"),
)


def check(folder: Path, config: StandardConfig) -> None:
    """Raise UserError for a special token that is no id, a padding token without a row in the embeddings, and settings
    of generation that transformers does not take.

    An end token beyond the vocabulary is the default of some families; the tokenizer and the chat template name others.
    """
    for file, values in _files(folder):
        for name in TOKENS:
            _check_token(file, name, values.get(name), config.values["vocab_size"])
    settings = folder / GENERATION
    if settings.is_file():
        _check_generation(settings, model_files.json_object(settings))


def _files(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the objects that name special tokens, each with its file."""
    written = folder / standard_config.NAME
    values = model_files.json_object(written)
    yield written, values
    if isinstance(values.get(standard_config.TEXT), dict):
        yield written, values[standard_config.TEXT]
    if (folder / GENERATION).is_file():
        yield folder / GENERATION, model_files.json_object(folder / GENERATION)


def _check_token(file: Path, name: str, value: Any, rows: int) -> None:
    ids = value if isinstance(value, list) and name != PAD else [value]
    for each in ids:
        if each is None or each == NONE:
            continue
        if type(each) is not int or each < 0:
            raise refused(file, f"says {name} = {value!r:.60}, which is no id of a token")
        if name == PAD and each >= rows:
            raise refused(file, f"says {name} = {each:,}, and the embeddings have {rows:,} rows")


def _check_generation(file: Path, values: Mapping[str, Any]) -> None:
    for name in _NUMBERS:
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise refused(file, f"says {name} = {value!r:.60}, which is no number")
    try:
        GenerationConfig.from_dict(dict(values))
    except Exception as error:  # the class checks its values in many ways
        raise refused(file, f"is refused by transformers: {describe(error)}") from error
