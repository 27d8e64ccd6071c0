"""Base models, spaces and trials that the tests of the search share."""

import math
import random
from collections.abc import Sequence

from luthier.design import Design, Schedule
from luthier.models.base_model import BaseModelEntry, ModelFacts
from luthier.task import Constraints, DataKind, Pin
from luthier.trial import TrialState
from luthier.updates import Full, Lora
from search.policy.history import Past, RungScore
from search.space.samplers import V
from search.space.space import Space


def entry(
    name: str = "tiny", *, layers: int = 6, kv_heads: int = 4, hidden: int = 128, **facts: object
) -> BaseModelEntry:
    defaults: dict[str, object] = {
        "architecture": "LlamaForCausalLM",
        "family": "decoder",
        "parameters": 1_900_000,
        "vocab_size": 4096,
        "context": 512,
        "chat_template": True,
        "attention_window": 512,
        "rope": "plain",
    }
    sizes = {"layers": layers, "heads": kv_heads, "kv_heads": kv_heads, "hidden_size": hidden}
    return BaseModelEntry(name=name, source=f"/models/{name}", facts=ModelFacts(**(defaults | sizes | facts)))


def scored(*values: float) -> tuple[RungScore, ...]:
    """At rungs, where trials are compared by the objective itself."""
    return tuple(RungScore(value, (value, value)) for value in values)


TINY = entry()
SMOL = entry("smol", layers=30, kv_heads=3, hidden=576, parameters=134_500_000)


def space_of(
    kind: DataKind = DataKind.PAIRS,
    pin: Pin | None = None,
    *,
    rows: int = 300,
    models: Sequence[BaseModelEntry] = (TINY,),
    parameters: int | None = None,
    length: int = 0,
    rewarded: bool = False,
    schedule: Schedule | None = None,
) -> Space:
    """A job's space. Trainings end at their best moment, or with `schedule="cosine"` after 1, 2 or 3 epochs."""
    pin = pin or Pin()
    if schedule is not None:
        pin = pin.model_copy(update={"schedule": (schedule,)})
    rewarded = rewarded or kind is DataKind.PROMPTS  # which are refused without
    limits = Constraints(parameters=parameters)
    return Space.for_job(kind, rows, models, pin, limits, length=length, rewarded=rewarded)


class AtRandom:
    """Answers a space's questions uniformly at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        return self._random.choice(choices)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        return math.exp(self._random.uniform(math.log(low), math.log(high)))


def complete(number: int, design: Design, value: float, device_seconds: float = 1.0) -> Past:
    return Past(number=number, design=design, state=TrialState.COMPLETE, value=value, device_seconds=device_seconds)


def samples(space: Space, count: int = 400) -> list[Design]:
    """Designs drawn at random, the same ones each time."""
    return [space.sample(AtRandom(seed)) for seed in range(count)]


def later_updates_of(pin: Pin) -> dict[str, set[str]]:
    """By the first stage's update, those of the second; `same` where it goes on with the first's parameters."""
    found: dict[str, set[str]] = {}
    for design in samples(space_of(DataKind.PREFERENCE, pin), 1000):
        first, later = (stage.update for stage in design.stages)
        found.setdefault(first.kind, set()).add("same" if first == later else later.kind)
        assert first == later or later in (Lora(rank=16), Full())
    return found
