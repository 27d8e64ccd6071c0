"""A worker loads a base once, trains copies of it only, and tokenises a dataset once for each algorithm."""

from __future__ import annotations

import json
import math
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.algorithms import Algorithm, Clm, Dpo, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import Infeasible
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.task import DataKind, JudgeSpec
from luthier.updates import (
    AdaLora,
    BitFit,
    Dora,
    Full,
    Ia3,
    LayerNorm,
    Lora,
    LoraPlus,
    Oft,
    Pissa,
    Prefix,
    Prompt,
    RandLora,
    RsLora,
    TopLayers,
    Update,
    Vera,
)
from tests import broken_models, data_samples
from tests.biased import biased
from tests.broken_models import BROKEN
from tests.conftest import TINY
from workers import cache
from workers.cache import Base
from workers.evaluate.judge import judge
from workers.train.algorithms import objective
from workers.train.architectures import build
from workers.train.data.tokenize import Renderer
from workers.train.loop import Progress, train

JUDGE = JudgeSpec(kind=DataKind.PREFERENCE, validation="v", test="t", objective="reward")
UPDATES: list[Update] = [Full(), TopLayers(layers=2), Lora(rank=2), RsLora(rank=2), Dora(rank=2)]
UPDATES += [LayerNorm(), BitFit(), Pissa(rank=2), LoraPlus(rank=2), Vera(rank=4), Ia3(), Oft(block=8)]
UPDATES += [RandLora(rank=32)]
UPDATES += [AdaLora(rank=2), Prompt(tokens=3), Prefix(tokens=3)]


class Unwatched:
    def after_step(self, progress: Progress) -> None:
        pass


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in data_samples.preference(6)), encoding="utf-8")
    return file


def test_a_base_is_loaded_once(tiny_entry: BaseModelEntry) -> None:
    again = BaseModelEntry.model_validate_json(tiny_entry.model_dump_json())  # as every lease brings it
    assert cache.base(again) is cache.base(tiny_entry)


def test_a_base_is_held_in_single_precision_and_ready_to_score(tiny: Base) -> None:
    assert {parameter.dtype for parameter in tiny.model.parameters()} == {torch.float32}
    assert not tiny.model.training


@pytest.mark.parametrize("architecture", [Architecture(base="tiny"), Architecture(base="tiny", layers=2, kv_heads=1)])
@pytest.mark.parametrize("update", UPDATES, ids=lambda update: update.kind)
def test_training_and_judging_leave_the_base_as_it_was_bit_for_bit(
    update: Update, architecture: Architecture, tiny: Base, rows_file: Path
) -> None:
    base = biased(tiny.model) if isinstance(update, BitFit) else tiny.model
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    config, modules = base.config.to_dict(), [type(module) for module in base.modules()]
    recipe = Optimiser(learning_rate=1e-3, batch_size=3)
    design = Design(
        architecture=architecture,
        stages=tuple(Stage(algorithm=a, update=update, optimiser=recipe) for a in (Sft(), Dpo())),
    )
    trained = train(
        build(base, architecture),
        design,
        lambda stage: cache.examples(tiny.entry, JUDGE, rows_file, stage.algorithm),
        seed=0,
        watch=Unwatched(),
    )
    judge(trained.judged(), tiny.tokenizer, JUDGE, cache.rows(rows_file))
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert base.config.to_dict() == config
    assert [type(module) for module in base.modules()] == modules
    assert all(parameter.requires_grad and parameter.grad is None for parameter in base.parameters())


def test_a_model_that_does_not_allow_all_is_cached_with_its_data(tiny: Base, rows_file: Path) -> None:
    facts = tiny.entry.facts.model_copy(update={"unsupported": {"oft": "it has no such layers"}})
    limited, again = (tiny.entry.model_copy(update={"name": "limited", "facts": facts}).model_copy() for _ in range(2))
    assert cache.base(limited) is cache.base(again) is not cache.base(tiny.entry)
    assert cache.frozen(limited, torch.device("cpu")) is cache.base(limited).model
    for spec in (JUDGE, JUDGE.model_copy(update={"tools": True})):
        assert cache.examples(limited, spec, rows_file, Sft()) is cache.examples(again, spec, rows_file, Sft())
        assert cache.calibration(limited, spec, rows_file) is cache.calibration(again, spec, rows_file)


def test_every_key_of_a_cache_has_a_hash() -> None:
    """Whatever fields the registry's entries and the judge get, with values in all of them."""
    facts = read_facts(TINY).model_copy(update={"unsupported": {"oft": "none"}, "untried": "none", "chat_fault": "no"})
    entry = BaseModelEntry(name="tiny", source=str(TINY), facts=facts)
    graders: dict[str, Any] = {"exact": {"type": "string_check"}, "near": {"type": "text_similarity"}}
    grader = {"type": "multi", "graders": graders, "calculate_output": "exact + near"}
    environment = {"name": "counting", "options": {"most": 3, "words": ["a"]}}
    values = {**JUDGE.model_dump(), "grader": grader, "environment": environment}
    for key in (entry, JudgeSpec.model_validate(values)):
        assert hash(key) == hash(type(key).model_validate_json(key.model_dump_json()))


def test_rows_are_read_once(rows_file: Path) -> None:
    first = cache.rows(rows_file)
    assert list(first) == data_samples.preference(6)
    assert cache.rows(Path(str(rows_file))) is first


@pytest.mark.parametrize("algorithm", [Clm(), Sft(), Dpo()], ids=lambda algorithm: algorithm.kind)
def test_data_are_tokenised_once_for_each_algorithm(algorithm: Algorithm, tiny: Base, rows_file: Path) -> None:
    first = cache.examples(tiny.entry, JUDGE, rows_file, algorithm)
    assert cache.examples(tiny.entry, JUDGE, rows_file, algorithm.model_copy()) is first
    render = Renderer(tiny.tokenizer, window=512, max_tokens=512)
    rows = data_samples.preference(6)
    expected = [e for row in rows for e in objective(algorithm).examples(row, DataKind.PREFERENCE, render)]
    assert list(first) == expected


def test_a_tokenizer_without_padding_pads_with_its_end_token(tiny: Base, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.entry.source, tmp_path / "unpadded")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = cache.base(tiny.entry.model_copy(update={"name": "unpadded", "source": str(folder)}))
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id


def test_a_folder_without_a_model_is_infeasible_and_named(tiny: Base, tmp_path: Path) -> None:
    with pytest.raises(Infeasible, match=f"empty .*{tmp_path}"):
        cache.base(tiny.entry.model_copy(update={"name": "empty", "source": str(tmp_path)}))


def _lost_layer(folder: Path) -> None:
    """Cut the second of two shards."""
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="2MB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:2000])


def _unreadable(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}')


def _not_finite(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.norm.weight": torch.full((128,), math.nan)}, folder / "model.safetensors")


UNUSABLE: dict[str, broken_models.Break] = {
    "shapes of another size": broken_models.config(intermediate_size=100),
    "an unknown type of numbers": BROKEN["a tensor of an unknown type"][0],
    "a header that is no JSON": BROKEN["a header that is no JSON"][0],
    "an unknown type of model": broken_models.config(model_type="no-such-type"),
    "an unknown activation": broken_models.config(hidden_act="no-such-function"),
    "a shard that is cut off": _lost_layer,
    "a tokenizer that cannot be read": _unreadable,
    "weights that are no numbers": _not_finite,
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_base_that_cannot_be_loaded_is_infeasible_whatever_the_libraries_raise(
    name: str, tiny: Base, tmp_path: Path
) -> None:
    folder = broken_models.copy(tmp_path / "model", UNUSABLE[name])
    with pytest.raises(Infeasible) as refused:
        cache.load(tiny.entry.model_copy(update={"name": "broken", "source": str(folder)}))
    assert refused.value.status == 422
    assert len(refused.value.message) < 1000


def test_the_end_of_the_process_is_no_fault_of_the_base(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", ended)
    with pytest.raises(SystemExit):
        cache.load(tiny.entry)


def test_pickled_weights_are_never_loaded(tiny: Base, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.entry.source, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save(tiny.model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(Infeasible, match="safetensors"):
        cache.base(tiny.entry.model_copy(update={"name": "pickled", "source": str(folder)}))


def test_a_job_without_tools_has_the_bases_own_tokenizer(tiny_entry: BaseModelEntry) -> None:
    assert cache.tokenizer(tiny_entry, JUDGE) is cache.base(tiny_entry).tokenizer


def test_rows_with_tools_have_a_chat_template_that_renders_them_and_others_are_unchanged(
    tiny: Base, rows_file: Path
) -> None:
    own, agents = tiny.tokenizer.chat_template, JUDGE.model_copy(update={"tools": True})
    showing = cache.tokenizer(tiny.entry, agents)
    assert showing.chat_template != own
    assert tiny.tokenizer.chat_template == own
    plain, shown = (cache.examples(tiny.entry, spec, rows_file, Dpo()) for spec in (JUDGE, agents))
    assert shown == plain


def test_a_template_that_shows_tools_stays(tiny: Base, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.entry.source, tmp_path / "qwen")
    shutil.copyfile(str(files("trl") / "chat_templates" / "qwen2_5.jinja"), folder / "chat_template.jinja")
    entry = tiny.entry.model_copy(update={"name": "qwen", "source": str(folder)})
    assert cache.tokenizer(entry, JUDGE.model_copy(update={"tools": True})) is cache.base(entry).tokenizer


def test_a_template_that_cannot_show_tools_is_infeasible(tiny: Base, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.entry.source, tmp_path / "blind")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    entry = tiny.entry.model_copy(update={"name": "blind", "source": str(folder)})
    with pytest.raises(Infeasible, match=r"chat template .*blind .*tools"):
        cache.tokenizer(entry, JUDGE.model_copy(update={"tools": True}))


def test_hyperparameters_do_not_matter_to_the_tokens(tiny: Base, rows_file: Path) -> None:
    first = cache.examples(tiny.entry, JUDGE, rows_file, Dpo(beta=0.1))
    assert cache.examples(tiny.entry, JUDGE, rows_file, Dpo(beta=0.3)) is first


def test_a_model_that_rescales_its_weights_for_float16_keeps_them(tiny: cache.Base, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "rwkv", vocab_size=64, hidden_size=16, attention_hidden_size=16, num_hidden_layers=3, rescale_every=1
    )
    model = AutoModelForCausalLM.from_config(config)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    entry = tiny.entry.model_copy(update={"name": "rwkv", "source": str(tmp_path)})
    loaded = cache.load(entry).model  # which reads rows with it
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in weights.items())


def test_code_that_came_with_a_model_is_not_named_where_it_is_saved(tiny: cache.Base, tmp_path: Path) -> None:
    own = shutil.copytree(tiny.entry.source, tmp_path / "own")
    named = {"config.json": "configuration_own.OwnConfig", "tokenizer_config.json": "tokenization_own.OwnTokenizer"}
    for file, code in named.items():
        values = json.loads((own / file).read_text()) | {"auto_map": {"AutoConfig": code}}
        (own / file).write_text(json.dumps(values))
    loaded = cache.load(tiny.entry.model_copy(update={"name": "own", "source": str(own)}))
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    for file in named:
        assert "auto_map" not in json.loads((tmp_path / "saved" / file).read_text())


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "flash_attention_9"},
        {"attn_implementation": "flex_attention_of_another_machine"},
        {"return_dict": False},
        {"output_hidden_states": True, "use_cache": False},
    ],
    ids=str,
)
def test_what_the_last_user_of_a_folder_set_changes_nothing(
    changes: dict[str, object], tiny: Base, tmp_path: Path
) -> None:
    folder = broken_models.copy(tmp_path / "model", broken_models.config(**changes))
    loaded = cache.load(tiny.entry.model_copy(update={"source": str(folder)}))
    ids = torch.tensor([[1, 55, 901, 7]])
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=ids).logits, tiny.model(input_ids=ids).logits)
    assert loaded.model.config.return_dict
    assert not loaded.model.config.output_hidden_states


def test_weights_in_eight_bit_floats_are_unpacked(tiny: Base, tmp_path: Path) -> None:
    """Their blocks have scales of their own, which are 0.5 here."""
    packed = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}
    folder = broken_models.copy(tmp_path / "model", broken_models.config(quantization_config=packed))
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    for key in [key for key in weights if key.endswith("_proj.weight")]:
        rows, columns = weights[key].shape
        weights[key] = (weights[key] * 2).to(torch.float8_e4m3fn)
        weights[f"{key}_scale_inv"] = torch.full((math.ceil(rows / 128), math.ceil(columns / 128)), 0.5)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = cache.load(tiny.entry.model_copy(update={"source": str(folder)}))
    found = loaded.model.get_parameter(name)
    assert found.dtype == torch.float32
    assert torch.allclose(found, tiny.model.get_parameter(name), rtol=0.1, atol=1e-3)
    assert not hasattr(loaded.model.config, "quantization_config")


def test_a_folder_with_an_adapter_is_no_base(tiny: Base, tmp_path: Path) -> None:
    """One that was registered before such folders were refused."""
    folder = broken_models.copy(tmp_path / "model", BROKEN["the settings of an adapter beside the model"][0])
    with pytest.raises(Infeasible, match=r"adapter_config\.json"):
        cache.load(tiny.entry.model_copy(update={"source": str(folder)}))
