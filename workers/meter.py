"""Measure the cost of a lease: seconds of training and judging, tokens, steps, rows, and peak memory in bytes.

On CUDA the peak is that of torch's allocator. On a CPU it is the peak resident size of the worker process since the
lease began. Linux can reset that peak (proc(5), clear_refs), and glibc returns the memory that the last trial freed
(malloc_trim(3)). On other systems the peak is that of the process's whole life (getrusage(2)).
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
import torch

from luthier.trial import Usage

_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"


class Meter:
    """Measures one lease. `clock` returns seconds; a benchmark may pass CPU time instead of wall time."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._device = torch.device("cpu")
        self._mark = clock()
        self._train_seconds = self._judge_seconds = 0.0
        self._tokens = self._steps = self._rows = 0

    def begin(self, device: torch.device) -> None:
        """Start measuring memory on `device`: reset the peak of what this process did before."""
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
            if trim is not None:
                trim(0)
            with suppress(OSError):  # not Linux, or not permitted: the peak remains that of the process's life
                _CLEAR_REFS.write_text(_RESET_PEAK)

    def stepping(self) -> None:
        """A training step begins; `stepped` ends it."""
        self._mark = self.clock()

    def stepped(self, tokens: int) -> None:
        """A training step on `tokens` tokens has ended."""
        self._train_seconds += self.clock() - self._mark
        self._tokens += tokens
        self._steps += 1

    @contextmanager
    def judging(self, rows: int) -> Iterator[None]:
        """Count the time in this context as judging `rows` held-out rows."""
        began = self.clock()
        try:
            yield
        finally:
            self._judge_seconds += self.clock() - began
            self._rows += rows

    def usage(self) -> Usage:
        """Return the totals so far."""
        cuda = self._device.type == "cuda"
        return Usage(
            peak_memory_bytes=torch.cuda.max_memory_allocated(self._device) if cuda else peak_resident(),
            train_seconds=self._train_seconds,
            train_tokens=self._tokens,
            steps=self._steps,
            judge_seconds=self._judge_seconds,
            judged_rows=self._rows,
        )


def peak_resident() -> int:
    """Return the peak resident size of this process in bytes, since the last reset where the system allows one."""
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Return the memory of this machine in bytes, or the limit of its container (cgroup v2) if that is lower."""
    total = int(psutil.virtual_memory().total)
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total
