"""What must be true of a folder before it is a base model: files, configuration, weights, tokenizer and template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from jinja2 import TemplateSyntaxError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from luthier.errors import UserError
from luthier.models import chat_template, confined, model_files, safetensors_header
from luthier.models.base_model import LEAST_CONTEXT, ModelFacts, StandardConfig, chat_templates, read_facts
from luthier.models.confined import Step, describe
from luthier.models.model_files import refused
from luthier.models.safetensors_header import Tensor
from workers.import_model import special_tokens, standard_config

TEMPLATE_SECONDS: Final = 3.0  # CPU time of all renderings; those of published templates take milliseconds
LONGEST_RENDERING: Final = 2**20  # characters of a conversation of one short message
# Tokens that stand for images or sound in families whose text models have no embedding for them (Gemma 3).
_OTHER_MODALITY: Final = re.compile(r"image|video|audio", re.IGNORECASE)
_LAYERS_SHARE_WEIGHTS: Final = "num_hidden_groups"  # ALBERT's
# How wrappers name the tensors of the model inside them.
_WRAPPERS: Final[Mapping[str, str]] = {
    "_orig_mod.": "the wrapper of torch.compile",
    "module.": "the wrapper of DistributedDataParallel or DeepSpeed",
    "_fsdp_wrapped_module.": "the wrapper of FullyShardedDataParallel",
}
_LAYER: Final = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)\.")
# Files of PEFT. transformers loads an adapter beside a model with it, and only the adapter is saved again.
_ADAPTER: Final = ("adapter_config.json", "adapter_model*.safetensors")
_OPTIONAL: Final = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


def facts(folder: Path, step: Step = lambda name: None) -> ModelFacts:
    """Return the facts of a model that can be trained. Raises UserError for what is wrong with the folder."""
    step(f"Reading the files of {folder}")
    if not folder.is_dir():
        raise refused(folder, "is not a folder")
    _check_adapter(folder)
    model_files.check(folder / standard_config.NAME)
    if not (folder / "tokenizer.json").is_symlink() and not (folder / "tokenizer.json").exists():
        raise refused(folder, "has no tokenizer.json (a fast tokenizer is required)")
    model_files.check(folder / "tokenizer.json", most_bytes=model_files.LARGEST_TOKENIZER)
    for name in _OPTIONAL:
        if (folder / name).is_symlink() or (folder / name).exists():
            model_files.json_object(folder / name)
    templates = chat_templates(folder)
    tensors = safetensors_header.tensors(folder)
    _check_names(folder, tensors)
    step(f"Reading the configuration of {folder}")
    config = standard_config.standard(folder)
    _check_sizes(folder, config, tensors)
    step(f"Loading the tokenizer of {folder}")
    _check_tokenizer(folder, config)
    special_tokens.check(folder, config)
    step(f"Rendering the chat template of {folder}")
    with confined.limited_step(TEMPLATE_SECONDS):
        for name, template in templates.items():
            _check_template(folder, name, template)
        found = read_facts(folder, config)
    if found.context < LEAST_CONTEXT:
        raise refused(
            folder,
            f"has a context of {found.context} tokens (max_position_embeddings or its like), and at least "
            f"{LEAST_CONTEXT} are needed",
        )
    return found


def _check_adapter(folder: Path) -> None:
    """Raise UserError for a folder with an adapter: only the weights of a whole model are trained and exported."""
    found = ", ".join(sorted(file.name for pattern in _ADAPTER for file in folder.glob(pattern)))
    if not found:
        return
    if not (folder / standard_config.NAME).exists():
        raise refused(
            folder, f"holds only a PEFT adapter ({found}): merge it into its base model, and register the merged model"
        )
    raise refused(
        folder,
        f"holds a PEFT adapter beside the model ({found}), and transformers would load both. Remove these files if the "
        "adapter is already merged into the weights; merge it first if it is not",
    )


def _check_names(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError for tensors named by a wrapper of the model, which transformers would take for unknown ones."""
    for prefix, wrapper in _WRAPPERS.items():
        wrapped = [name for name in tensors if name.startswith(prefix)]
        if wrapped and len(wrapped) >= len(tensors) / 2:
            raise refused(
                folder,
                f"has weights that were saved with {wrapper}: {len(wrapped)} of {len(tensors)} tensors have the prefix "
                f"{prefix!r}, such as {wrapped[0]}. Save the model inside of it, or remove the prefix from the names",
            )


def _check_sizes(folder: Path, config: StandardConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError where the weights are not those of a model of this size: transformers would make up the rest."""
    sides = {side for tensor in tensors.values() for side in tensor.shape}
    first = {tensor.shape[0] for tensor in tensors.values() if len(tensor.shape) > 1}
    for name, found in (("vocab_size", first), ("hidden_size", sides)):
        if config.values[name] not in found:
            raise refused(
                folder / standard_config.NAME,
                f"says {name} = {config.values[name]}, but no tensor of the weights has that size",
            )
    layers = {int(match[1]) for name in tensors if (match := _LAYER.search(name))}
    wanted = config.values["num_hidden_layers"]
    if 0 < len(layers) < wanted and not _shares_layers(config, len(layers)):
        raise refused(
            folder / standard_config.NAME, f"says num_hidden_layers = {wanted}, but the weights have {len(layers)}"
        )


def _shares_layers(config: StandardConfig, found: int) -> bool:
    """Return whether a model may pass its layers several times: the configuration also counts as many as were found
    (HRM's `num_layers_per_stack`). Whether weights are missing is found out from the class itself later on."""
    counted = [value for name, value in config.values.items() if "layers" in name and type(value) is int]
    return _LAYERS_SHARE_WEIGHTS in config.values or found in counted


def _check_tokenizer(folder: Path, config: StandardConfig) -> None:
    file = folder / "tokenizer.json"
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        backend = tokenizer.backend_tokenizer
        ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    except (UserError, MemoryError):
        raise
    except BaseException as error:  # panics of the tokenizers library are no Exception
        raise refused(file, f"cannot be loaded: {describe(error)}") from error
    if not ids:
        raise refused(file, "has no tokens")
    rows = config.values["vocab_size"]
    beyond = {token: number for token, number in ids.items() if number >= rows}
    added = {each.content for each in backend.get_added_tokens_decoder().values() if each.special}
    if lost := [token for token in beyond if token not in added or not _OTHER_MODALITY.search(token)]:
        raise refused(
            file,
            f"is larger than the embeddings, which have {rows:,} rows: {lost[0]!r:.60} has the id {beyond[lost[0]]:,}",
        )
    _check_special_tokens(folder, tokenizer, config)


def _check_special_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase, config: StandardConfig) -> None:
    if config.family == "encoder":
        if tokenizer.mask_token_id is None:
            raise refused(folder, "has a tokenizer without a mask token, which an encoder is trained with")
        return
    if tokenizer.eos_token_id is None and tokenizer.pad_token_id is None and config.values.get("eos_token_id") is None:
        raise refused(
            folder,
            "has neither an end-of-text token nor a padding token: set eos_token or pad_token in tokenizer_config.json",
        )


def _check_template(folder: Path, name: str, template: str) -> None:
    """Raise UserError for a template that is not Jinja, or renders a short message without end."""
    where = f"has a chat template ({name}) that"
    try:
        for generate in (False, True):
            shown = chat_template.render(template, [{"role": "user", "content": "Hi."}], add_generation_prompt=generate)
            if len(shown) > LONGEST_RENDERING:
                raise refused(folder, f"{where} makes {len(shown):,} characters of a message of three")
    except UserError:
        raise
    except TemplateSyntaxError as error:
        raise refused(folder, f"{where} is not valid Jinja: line {error.lineno}: {error.message}") from error
    except (MemoryError, RecursionError, OverflowError) as error:
        raise refused(folder, f"{where} cannot be rendered: {describe(error)}") from error
    except Exception:  # it refuses this conversation, and may take others
        return
