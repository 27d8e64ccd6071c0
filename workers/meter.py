"""What a lease takes, measured: seconds in training steps and in scoring, what was done in them, and peak memory.

On CUDA the memory is what torch's allocator held at its highest. On a CPU it is the highest resident size of the whole
worker process since the lease began: Linux forgets an earlier peak when told to (proc(5), clear_refs), and glibc gives
back what the last trial has freed (malloc_trim(3)), so that the figure speaks of this trial. Elsewhere a process keeps
its peak for life (getrusage(2)), and the figure is that of its largest trial so far.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import torch

from luthier.trial import Usage

_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_FORGET_PEAK: Final = "5"


class Meter:
    """Measures one lease. `clock` gives seconds; a benchmark has those of the CPU in place of the wall's."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._device = torch.device("cpu")
        self._mark = clock()
        self._train_seconds = self._judge_seconds = 0.0
        self._tokens = self._steps = self._rows = 0

    def begin(self, device: torch.device) -> None:
        """Forget the peak of what this process did before."""
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _give_back()
            _forget_peak()

    def stepping(self) -> None:
        """From now on, until `stepped`, a training step is made."""
        self._mark = self.clock()

    def stepped(self, tokens: int) -> None:
        """A step has learnt from so many tokens."""
        self._train_seconds += self.clock() - self._mark
        self._tokens += tokens
        self._steps += 1

    @contextmanager
    def judging(self, rows: int) -> Iterator[None]:
        """Within this context so many held-out rows are scored."""
        began = self.clock()
        try:
            yield
        finally:
            self._judge_seconds += self.clock() - began
            self._rows += rows

    def usage(self) -> Usage:
        """All of it so far."""
        return Usage(
            peak_memory_bytes=self._peak(),
            train_seconds=self._train_seconds,
            train_tokens=self._tokens,
            steps=self._steps,
            judge_seconds=self._judge_seconds,
            judged_rows=self._rows,
        )

    def _peak(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return peak_resident()


def peak_resident() -> int:
    """The highest resident size of this process in bytes, since it was last told to forget it."""
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes that processes of this machine may have; in a container (cgroup v2) those that it is limited to."""
    total = int(psutil.virtual_memory().total)
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total


def _forget_peak() -> None:
    try:
        _CLEAR_REFS.write_text(_FORGET_PEAK)
    except OSError:  # not Linux, or not allowed: the peak stays that of the process's life
        return


def _give_back() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
