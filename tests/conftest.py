"""What every test relies on: no network, one thread, and one copy of the tiny model that the tests train."""

from __future__ import annotations

import functools
import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx._transports.default
import pytest
from hypothesis import HealthCheck, settings

from luthier.child_process import fork_server
from luthier.models.base_model import BaseModelEntry, read_facts

if TYPE_CHECKING:
    from workers.cache import Base

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when a test imports it; worker processes inherit it
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["COLUMNS"] = "200"  # read by the console when it is made: what it says must not break in the middle

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a run in the background: its children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Each client would load all the world's certificates, which takes 40 ms, to speak plain HTTP with a service here.
httpx._transports.default.create_ssl_context = functools.cache(httpx._transports.default.create_ssl_context)

pytest.register_assert_rewrite("conformance_updates", "textbook", "tests.conformance_environments")

# How long it takes to make examples says how busy the machine is, and nothing about the code.
settings.register_profile("luthier", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("luthier")

TINY = Path(__file__).parent / "models" / "tiny-chat"
TINY_ENCODER = Path(__file__).parent / "models" / "tiny-encoder"


def pytest_configure(config: pytest.Config) -> None:
    """Start one fork server for all processes of the run, as `luthier serve` does for its own."""
    if not hasattr(config, "workerinput"):  # not in the processes of pytest-xdist
        forking = fork_server()
        forking.__enter__()
        config.add_cleanup(lambda: forking.__exit__(None, None, None))


def pytest_collection_finish() -> None:
    """Keep the modules and the thousands of tests out of garbage collections, which took two seconds each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_entry() -> BaseModelEntry:
    """The registry's line for the tiny chat model."""
    return BaseModelEntry(name="tiny-chat", source=str(TINY), facts=read_facts(TINY))


@pytest.fixture(scope="session")
def tiny(tiny_entry: BaseModelEntry) -> Base:
    """The tiny chat model as a worker keeps it. Train copies; copy the tokenizer before changing it."""
    from workers import cache  # torch takes seconds to import, and most tests do without

    return cache.base(tiny_entry)


@pytest.fixture(scope="session")
def encoder_entry() -> BaseModelEntry:
    """The registry's line for the tiny encoder."""
    return BaseModelEntry(name="tiny-encoder", source=str(TINY_ENCODER), facts=read_facts(TINY_ENCODER))


@pytest.fixture(scope="session")
def encoder(encoder_entry: BaseModelEntry) -> Base:
    """The tiny encoder as a worker keeps it. Train copies."""
    from workers import cache

    return cache.base(encoder_entry)
