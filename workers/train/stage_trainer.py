"""Train one trial through one of its stages: batches, loss, gradient accumulation, clipping, AdamW, schedule, average.

Nothing here is shared between trainers, so two of them in one process do not affect each other's numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_

from luthier.design import Optimiser
from luthier.errors import TrialFailed
from luthier.trial import TRAIN_LOSS, StageEnd, StageLength
from workers.train.algorithms import Example, Objective
from workers.train.algorithms.base import Batch, ReadsModel
from workers.train.average import WeightAverage
from workers.train.data.padding_free import UnpaddedRows, lay_out, within
from workers.train.forward import TOKEN_CAP, CausalModel, target_logps
from workers.train.updates import Applied

MAX_GRAD_NORM: Final = 1.0
# Why stages ended, by their number in a checkpoint. Earlier versions wrote 1 for every early end.
ENDS: Final[tuple[StageEnd | None, ...]] = (None, "best_long_past", "budget", "user", "limit")
SEED_STRIDE: Final = 1_000_003  # between the random streams of neighbouring seeds


def data_order(rows: int, epochs: float, seed: int) -> list[int]:
    """Return the order of examples: whole shuffled epochs, the last one cut short if `epochs` is not a whole number."""
    total = max(1, round(rows * epochs))
    order: list[int] = []
    for epoch in range(math.ceil(total / rows)):
        generator = torch.Generator().manual_seed(seed * SEED_STRIDE + epoch)
        order.extend(torch.randperm(rows, generator=generator).tolist())
    return order[:total]


def learning_rate(optimiser: Optimiser, step: int, total: int, per_epoch: int) -> float:
    """Return the rate of a step of `total`, of which `per_epoch` make an epoch: linear warm-up, then the schedule.

    The same as transformers' `get_cosine_schedule_with_warmup` and `get_constant_schedule_with_warmup`.
    """
    warmup = warmup_steps(optimiser, total, per_epoch)
    if step < warmup:
        return optimiser.learning_rate * step / max(1, warmup)
    match optimiser.schedule:
        case "constant":
            return optimiser.learning_rate
        case "cosine":
            progress = (step - warmup) / max(1, total - warmup)
            return optimiser.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def warmup_steps(optimiser: Optimiser, total: int, per_epoch: int) -> int:
    """Return the number of warm-up steps. Under `constant` it does not depend on the length of the training."""
    return int(optimiser.warmup * (total if optimiser.schedule == "cosine" else per_epoch))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One optimiser step: its number, the number of steps in the stage, the tokens read, and curve values by name."""

    step: int
    of: int
    tokens: int
    values: dict[str, float]


class StageTrainer:
    """Trains one stage of a trial, step by step. Raises TrialFailed if the stage has no examples.

    parameters  the parameters that move, by name: the update's, and the `head` of an objective that has one
    reference   [examples, sequences per example]: log-probabilities under the stage's initial weights, if needed
    first       the initial values of the moving parameters, if the objective needs the initial model itself
    best        the weights that were kept as the stage's result, and `best_step` when; empty: it is the last step's
    """

    def __init__(
        self, *, applied: Applied, objective: Objective, examples: Sequence[Example], optimiser: Optimiser, seed: int
    ) -> None:
        if not examples:
            raise TrialFailed("no training row has a target token within the length limit (max_length)")
        self.applied = applied
        self.objective = objective
        self.examples = examples
        self.optimiser = optimiser
        self.seed = seed
        self.head = objective.parameters(applied.model, seed) if isinstance(objective, ReadsModel) else {}
        self.parameters = applied.trainable() | self.head
        self.device = applied.model.device
        self.order = data_order(len(examples), optimiser.epochs, seed)
        self.steps = math.ceil(len(self.order) / optimiser.batch_size)
        self.per_epoch = math.ceil(len(examples) / optimiser.batch_size)
        self.step = 0
        self.updates = 0  # steps that changed the parameters; a batch of rollouts without a signal changes none
        # Biases and norm scales have no weight decay, as in transformers' Trainer.
        groups: dict[tuple[float, float], list[Parameter]] = {}
        for name, parameter in self.parameters.items():
            decay = optimiser.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((decay, applied.lr_scale(name)), []).append(parameter)
        self.adamw = torch.optim.AdamW(
            [{"params": group, "weight_decay": decay, "lr_scale": scale} for (decay, scale), group in groups.items()],
            lr=optimiser.learning_rate,
        )
        self.reference: torch.Tensor | None = None
        self.first: dict[str, torch.Tensor] = {}
        self.best: dict[str, torch.Tensor] = {}
        self.best_step = 0
        self._ended: StageEnd | None = None  # why the stage ended before its last step
        self.average = WeightAverage(self.parameters) if optimiser.schedule == "constant" else None
        # A training under `constant` has no length of its own: what follows the length settles within an epoch.
        applied.begin(self.steps if self.average is None else self.per_epoch)

    @property
    def model(self) -> CausalModel:
        return self.applied.model

    @property
    def step_seed(self) -> int:
        return self.seed * SEED_STRIDE + self.step

    @property
    def done(self) -> bool:
        return self._ended is not None or self.step >= self.steps

    def result(self) -> AbstractContextManager[None]:
        """Give the model, for a while, the weights that the stage would end with if it ended now."""
        return nullcontext() if self.average is None else self.average.applied()

    def keep_best(self) -> None:
        """Make the weights of this step the stage's result. Needs a constant learning rate."""
        assert self.average is not None, "a schedule that decays has a result only at its end"
        self.best, self.best_step = self.average.snapshot(), self.step

    def stop(self, why: StageEnd) -> None:
        """End the stage here."""
        self._ended = why

    def finish(self) -> StageLength:
        """Give the model the stage's result. Return how long the training was."""
        if self.average is not None:
            if self.best:
                self.average.restore(self.best)
            self.average.keep()
        step = self.best_step or self.step
        seen = step * self.optimiser.batch_size
        epochs = self.optimiser.epochs if step == self.steps else seen / len(self.examples)
        return StageLength(steps=step, epochs=epochs, trained=self.step, ended=self._ended or "limit")

    def keep_reference(self) -> None:
        """Make the present weights the reference model. Keep only what the objective compares with."""
        match self.objective.reference:
            case "none":
                pass
            case "scores":
                flat = [(tokens,) for example in self.examples for tokens in example]
                self.reference = torch.stack([logps.sum() for logps in self.logps(flat)]).view(len(self.examples), -1)
            case "weights":
                self.first = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def logps(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """Return the log-probabilities of each example's targets: [targets] each."""
        scores: list[torch.Tensor] = []
        for group in within(examples, TOKEN_CAP[self.device.type]):
            rows = lay_out([tokens for example in group for tokens in example], self.device)
            targets = [sum(tokens.targets for tokens in example) for example in group]
            scores.extend(target_logps(self.model, rows).split(targets))
        return scores

    def reference_logps(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """Return the same under the reference model, by swapping its parameters in for the call."""
        self._swap_reference()
        try:
            return self.logps(examples)
        finally:
            self._swap_reference()

    def _swap_reference(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, self.first[name] = self.first[name], parameter.data

    def advance(self) -> StepReport:
        """Take one optimiser step; none if the batch is empty. Raises TrialFailed if the loss is not finite."""
        size = self.optimiser.batch_size
        chosen = self.order[self.step * size : (self.step + 1) * size]
        drawn = [self.examples[i] for i in chosen]
        if self.reference is not None:
            batch = Batch(examples=drawn, signals=[self.reference[i] for i in chosen])
        else:
            batch = self.objective.batch(drawn, self)
        rate = learning_rate(self.optimiser, self.step, self.steps, self.per_epoch)
        tokens, values = self._learn(batch, rate) if batch.examples else (0, {TRAIN_LOSS: 0.0, "grad_norm": 0.0})
        self.step += 1
        if self.average is not None:
            self.average.after_step(self.step)
        values = {**values, "learning_rate": rate, **batch.values}
        return StepReport(step=self.step, of=self.steps, tokens=tokens, values=values)

    def _learn(self, batch: Batch, rate: float) -> tuple[int, dict[str, float]]:
        """Update the parameters. Return the tokens read and the curve values."""
        loss, tokens, sums = self._accumulate(batch)
        if (penalty := self.applied.penalty()) is not None:
            penalty.backward()
            loss += float(penalty.detach())
        norm = float(clip_grad_norm_(self.parameters.values(), MAX_GRAD_NORM))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrialFailed(f"training diverged: loss {loss:g}, gradient norm {norm:g} at step {self.step + 1}")
        for group in self.adamw.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.adamw.step()
        self.applied.after_step(self.step)
        self.adamw.zero_grad(set_to_none=True)
        self.updates += 1
        means = {name: total / len(batch.examples) for name, total in sums.items()}
        return tokens, {TRAIN_LOSS: loss, "grad_norm": norm, **means}

    def _accumulate(self, batch: Batch) -> tuple[float, int, dict[str, float]]:
        """Accumulate the gradient of the batch's mean loss over micro-batches of at most TOKEN_CAP tokens.

        Return the loss, the tokens read, and the curve values summed over examples.
        """
        weight = self.objective.weight(batch.examples)
        loss, tokens, sums, start = 0.0, 0, dict[str, float](), 0
        for group in within(batch.examples, TOKEN_CAP[self.device.type]):
            rows = lay_out([sequence for example in group for sequence in example], self.device)
            signal = torch.cat(list(batch.signals[start : start + len(group)])) if batch.signals is not None else None
            part = self.objective.loss(self._read(rows), rows, signal)
            mean = (part.total / part.total.new_tensor(weight)).sum()
            mean.backward()
            loss += float(mean.detach())
            tokens += rows.ids_1T.shape[1]
            start += len(group)
            for name, value in part.sums.items():
                sums[name] = sums.get(name, 0.0) + value
        return loss, tokens, sums

    def _read(self, rows: UnpaddedRows) -> torch.Tensor:
        if isinstance(self.objective, ReadsModel):
            return self.objective.read(self.model, self.head, rows)
        return target_logps(self.model, rows)

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything that `restore` needs except the step number; names as in `Checkpoint`."""
        tensors: dict[str, torch.Tensor] = {f"weights.{name}": p for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            if moments := self.adamw.state.get(parameter):
                tensors[f"moment1.{name}"] = moments["exp_avg"]
                tensors[f"moment2.{name}"] = moments["exp_avg_sq"]
        if self.reference is not None:
            tensors["reference"] = self.reference
        tensors |= {f"first.{name}": tensor for name, tensor in self.first.items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.tensors.items()}
        if self.best:
            tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
            tensors["best_step"] = torch.tensor(self.best_step)
        if self._ended is not None:
            tensors["stopped"] = torch.tensor(ENDS.index(self._ended))
        if self.updates != self.step:
            tensors["updates"] = torch.tensor(self.updates)
        return tensors | {f"update.{name}": tensor for name, tensor in self.applied.state().items()}

    def restore(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Continue from the `state` that was saved after `step` steps."""
        self.step = step
        self.updates = int(tensors["updates"]) if "updates" in tensors else step
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"weights.{name}"])
                if f"moment1.{name}" in tensors:
                    self.adamw.state[parameter] = {
                        "step": torch.tensor(float(self.updates)),
                        "exp_avg": tensors[f"moment1.{name}"].to(parameter.device, copy=True),
                        "exp_avg_sq": tensors[f"moment2.{name}"].to(parameter.device, copy=True),
                    }
        if "reference" in tensors:
            self.reference = tensors["reference"].to(self.device)
        self.first = {
            name: tensors[at].to(self.device) for name in self.parameters if (at := f"first.{name}") in tensors
        }
        if self.average is not None:
            self.average.restore({name: tensors[f"average.{name}"] for name in self.parameters})
        if "best_step" in tensors:
            self.best = {name: tensors[f"best.{name}"] for name in self.parameters}
            self.best_step = int(tensors["best_step"])
        self._ended = ENDS[int(tensors["stopped"])] if "stopped" in tensors else None
        own = {name: tensor for name, tensor in tensors.items() if name.startswith("update.")}
        self.applied.restore({name.removeprefix("update."): tensor for name, tensor in own.items()})
