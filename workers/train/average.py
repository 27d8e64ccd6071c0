"""A moving average of the weights in training: what a run at a constant learning rate is worth at any moment.

A constant rate leaves noise in the weights that a decay to zero would remove, at the price of fixing the length of the
training beforehand. Averaging removes it as well (Hägele et al. 2024, arXiv 2405.18392; Sandler et al. 2023, arXiv
2301.11987). So one run has a result at each of its steps, and may go on from each. `python -m bench.schedules` compares
both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
from torch.nn import Parameter

EXPONENT: Final = 2.9  # the standard deviation of the profile is a sixth of the steps so far (equation 126 there)


def keep_share(step: int) -> float:
    """Return the share that the average keeps of itself at optimiser step `step`, counted from 1.

    The profile of the average is a power of the step (Karras et al. 2024, arXiv 2312.02696, equation 1). Its width is a
    share of the training so far, so the rule is the same for every length. The first step replaces it.
    """
    return math.pow(1.0 - 1.0 / step, EXPONENT + 1.0)


class WeightAverage:
    """The average of `parameters` over the steps of a stage."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = parameters
        self.tensors = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 1."""
        share = keep_share(step)
        for name, parameter in self._parameters.items():
            self.tensors[name].mul_(share).add_(parameter, alpha=1.0 - share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def keep(self) -> None:
        """Give the model the averaged weights for good."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.tensors[name])

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Return a copy of the average, in host memory."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self.tensors.items()}

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self.tensors[name] = self.tensors[name], parameter.data
