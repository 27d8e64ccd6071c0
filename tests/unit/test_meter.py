"""The meter: seconds, tokens, rows and peak memory of a lease."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import torch

from workers.meter import Meter, machine_memory, peak_resident

MIB = 2**20


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


def test_seconds_are_counted_in_steps_and_in_scoring_apart(clock: list[float]) -> None:
    meter = Meter(lambda: clock[0])
    meter.begin(torch.device("cpu"))
    clock[0] = 5.0  # building the model
    for tokens in (100, 40):
        meter.stepping()
        clock[0] += 2.0
        meter.stepped(tokens)
        with meter.judging(16):
            clock[0] += 0.5
    usage = meter.usage()
    assert (usage.train_seconds, usage.train_tokens, usage.steps) == (4.0, 140, 2)
    assert (usage.judge_seconds, usage.judged_rows) == (1.0, 32)


def test_scoring_that_fails_took_its_time_too(clock: list[float]) -> None:
    meter = Meter(lambda: clock[0])

    def fail() -> None:
        with meter.judging(4):
            clock[0] += 3.0
            raise ValueError("nothing to score")

    with pytest.raises(ValueError, match="nothing to score"):
        fail()
    assert meter.usage().judge_seconds == 3.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_a_lease_answers_for_its_own_peak_of_memory() -> None:
    meter = Meter()
    meter.begin(torch.device("cpu"))
    before = meter.usage().peak_memory_bytes
    held = torch.ones(64 * MIB // 4)
    at_most = meter.usage().peak_memory_bytes
    assert at_most - before >= 60 * MIB
    del held
    assert meter.usage().peak_memory_bytes >= at_most - MIB  # it remembers what is gone
    after = Meter()
    after.begin(torch.device("cpu"))
    assert after.usage().peak_memory_bytes <= at_most - 50 * MIB
    assert peak_resident() > 0


def test_a_container_has_the_memory_that_it_is_limited_to(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    whole = machine_memory(limit)
    limit.write_text("max\n")
    assert machine_memory(limit) == whole == psutil.virtual_memory().total
    limit.write_text(f"{64 * MIB}\n")
    assert machine_memory(limit) == 64 * MIB
