"""Steps with a limit on CPU time."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from luthier.models import confined

LOOP = "from luthier.models import confined\nwith confined.limited_step(0.1):\n    while True: pass"


def test_a_step_that_takes_too_much_cpu_time_ends_its_process() -> None:
    assert subprocess.run([sys.executable, "-c", LOOP], timeout=60).returncode == -signal.SIGPROF


@pytest.mark.parametrize("fault", [None, ValueError])
def test_a_limit_ends_with_its_step(fault: type[Exception] | None) -> None:
    before = signal.getsignal(signal.SIGPROF)
    try:
        with confined.limited_step(60):
            assert signal.getitimer(signal.ITIMER_PROF)[0] > 0
            if fault:
                raise fault
    except ValueError:
        pass
    assert (signal.getitimer(signal.ITIMER_PROF), signal.getsignal(signal.SIGPROF)) == ((0, 0), before)
