"""Jobs on encoders: which models and programs a job may mix, and one job from the file to a winner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import IllegalDesign
from tests import data_samples
from tests.integration.service_harness import Service, texts
from tests.live import Live, eventually

pytest_plugins = ("tests.integration.service_fixtures",)
pytestmark = pytest.mark.xdist_group("encoder-job")

ENCODER = Path(__file__).parents[1] / "models" / "tiny-encoder"


@pytest.fixture
def both(service: Service) -> Service:
    """A service that has a decoder (tiny-chat) and an encoder."""
    service.client.add_model("tiny-encoder", str(ENCODER))
    return service


def models_of(service: Service, **body: Any) -> tuple[str, ...] | None:
    return service.client.job(service.submit(texts(), **body)).luthier.search.pin.model


def pin(**axes: Any) -> dict[str, Any]:
    return {"search": {"trials": 4, "pin": axes}}


def test_text_goes_to_decoders_unless_an_encoder_is_asked_for(both: Service) -> None:
    assert models_of(both) == ("tiny-chat",)
    assert models_of(both, model="tiny-encoder") == ("tiny-encoder",)
    assert models_of(both, **pin(algorithm=["mlm"])) == ("tiny-encoder",)
    assert models_of(both, **pin(mask=[0.3], algorithm=["mlm"])) == ("tiny-encoder",)


def test_knowing_a_text_is_taught_to_an_encoder_by_masks(both: Service) -> None:
    job = both.client.job(both.submit(texts(), model="tiny-encoder", task={"goal": "domain"}))
    assert job.luthier.search.pin.algorithm == ("mlm",)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (
            pin(model=["tiny-chat", "tiny-encoder"]),
            "search.pin.model",
            "pseudo-perplexity of encoders cannot be compared",
        ),
        (pin(algorithm=["clm", "mlm"]), "search.pin.algorithm", "clm is for decoders, mlm is for encoders, and the"),
        (
            {"model": "tiny-encoder", **pin(algorithm=["clm"])},
            "search.pin.algorithm",
            "clm needs a decoder, but tiny-encoder is an encoder.* mlm",
        ),
        (
            {"model": "tiny-chat", **pin(algorithm=["mlm"])},
            "search.pin.algorithm",
            "mlm needs an encoder, but tiny-chat",
        ),
        ({"model": "tiny-chat", **pin(mask=[0.3])}, "search.pin.mask", "mask is pinned.* mlm"),
        ({"model": "tiny-encoder", **pin(kv_heads=[2])}, "search.pin.kv_heads", "choose from 4 of tiny-encoder"),
        ({"model": "tiny-encoder", **pin(window=[64])}, "search.pin.window", "choose from 0"),
        (
            {"model": "tiny-encoder", "task": {"goal": "behaviour"}},
            "task.goal",
            "mlm",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)
def test_what_an_encoder_cannot_do_is_refused_by_field(
    body: dict[str, Any], param: str, message: str, both: Service
) -> None:
    with pytest.raises(IllegalDesign, match=message) as refused:
        both.submit(texts(), **body)
    assert refused.value.param == param


def test_an_encoder_is_not_given_answers_to_learn(both: Service) -> None:
    with pytest.raises(IllegalDesign, match=r"pairs.*decoder.*tiny-encoder"):
        both.submit(model="tiny-encoder")


def test_a_job_on_an_encoder_beats_its_pseudo_perplexity(tmp_path: Path) -> None:
    live = Live(tmp_path / "home")
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in data_samples.text(72)))
    client = live.start()
    try:
        client.add_model("tiny-encoder", str(ENCODER))
        job = client.create_job(
            client.upload(file).id,
            search={"trials": 4, "confirmations": 0, "pin": {"learning_rate_multiplier": [3], "epochs": [3]}},
        )
        ended = eventually(lambda: (now := client.job(job.id)).status.terminal and now, 400)
        assert ended.status == "succeeded", [event.message for event in client.events(job.id)]
        best = client.best(job.id)
        assert best.base_metrics is not None
        assert best.base_metrics.pseudo_perplexity is not None
        assert best.metrics.perplexity is None
        assert best.metrics.pseudo_perplexity < 0.8 * best.base_metrics.pseudo_perplexity
        assert best.metrics.bits_per_byte < best.base_metrics.bits_per_byte
        assert {trial.design.recipe for trial in client.trials(job.id)} == {"base", "mlm"}
        scored = [point.step for point in client.points(job.id, best.trial) if point.name == "valid_loss"]
        assert scored == sorted(set(scored))
        assert len(scored) > len(client.trial(job.id, best.trial).measured) > 0, "at moments and rungs"
        assert f"pseudo-perplexity {best.metrics.pseudo_perplexity:.4g}" in "".join(
            event.message for event in client.events(job.id)
        )
        assert "pseudo-perplexity" in live.command("trials", job.id).stdout
        assert live.command("export", job.id, str(tmp_path / "model")).returncode == 0
        assert live.command("generate", job.id, "Hello").returncode == 2
        card = next((tmp_path / "model").rglob("README.md")).read_text("utf-8")
        assert "pipeline_tag: fill-mask" in card
    finally:
        live.close()
