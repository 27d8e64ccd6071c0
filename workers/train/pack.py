"""A pack: trials that share base and architecture and are trained by one loop. A solo trial is a pack of one.

Each member keeps its own parameters, optimiser, schedule, clipping, data order and objective; nothing is shared that
could let one member's numbers reach another's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_

from luthier.design import Optimiser
from luthier.errors import TrialFailed
from workers.train.algorithms import Example, Objective
from workers.train.algorithms.objective import sequence_logps
from workers.train.data.unpadded import lay_out, within
from workers.train.forward import TOKEN_CAP, target_logps
from workers.train.updates import Applied

MAX_GRAD_NORM = 1.0


def data_order(rows: int, epochs: float, seed: int) -> list[int]:
    """Which example comes when: whole shuffled passes, the last one cut where `epochs` is not a whole number."""
    total = max(1, round(rows * epochs))
    order: list[int] = []
    for epoch in range(math.ceil(total / rows)):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order.extend(torch.randperm(rows, generator=generator).tolist())
    return order[:total]


def learning_rate(optimiser: Optimiser, step: int, total: int) -> float:
    """Linear warm-up, then cosine to zero, as transformers' `get_cosine_schedule_with_warmup`."""
    warmup = int(optimiser.warmup * total)
    if step < warmup:
        return optimiser.learning_rate * step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return optimiser.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one optimiser step of one member did. `values` are curve points by name."""

    step: int
    of: int
    tokens: int
    values: dict[str, float]


class Member:
    """One trial in one of its stages. Raises TrialFailed where the stage has nothing to learn from."""

    def __init__(
        self, *, applied: Applied, objective: Objective, examples: Sequence[Example], optimiser: Optimiser, seed: int
    ) -> None:
        if not examples:
            raise TrialFailed("no training row has a target within the length limit")
        self.applied = applied
        self.objective = objective
        self.examples = examples
        self.recipe = optimiser
        self.parameters = applied.trainable()
        self.device = applied.model.device
        self.order = data_order(len(examples), optimiser.epochs, seed)
        self.steps = math.ceil(len(self.order) / optimiser.batch_size)
        self.step = 0
        # Norm scales and biases are not decayed, as in transformers' Trainer.
        groups: dict[tuple[float, float], list[Parameter]] = {}
        for name, parameter in self.parameters.items():
            decay = optimiser.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((decay, applied.pace(name)), []).append(parameter)
        self.adamw = torch.optim.AdamW(
            [{"params": group, "weight_decay": decay, "pace": pace} for (decay, pace), group in groups.items()],
            lr=optimiser.learning_rate,
        )
        self.reference: torch.Tensor | None = None  # [examples, sequences in an example]
        applied.begin(self.steps)

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    def fix_reference(self) -> None:
        """Score every example under the present weights, which are the reference from now on."""
        if not self.objective.needs_reference:
            return
        scores: list[torch.Tensor] = []
        with torch.no_grad():
            for group in within(self.examples, TOKEN_CAP[self.device.type]):
                rows = lay_out([tokens for example in group for tokens in example], self.device)
                scores.append(sequence_logps(target_logps(self.applied.model, rows), rows))
        self.reference = torch.cat(scores).view(len(self.examples), -1)

    def advance(self) -> StepReport:
        """One optimiser step. Raises TrialFailed when the loss stops being a number."""
        batch = self.recipe.batch_size
        chosen = self.order[self.step * batch : (self.step + 1) * batch]
        loss, tokens, sums = self._accumulate(chosen)
        loss += self._penalise()
        norm = float(clip_grad_norm_(self.parameters.values(), MAX_GRAD_NORM))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrialFailed(f"training diverged: loss {loss:g}, gradient norm {norm:g} at step {self.step + 1}")
        rate = learning_rate(self.recipe, self.step, self.steps)
        for group in self.adamw.param_groups:
            group["lr"] = rate * group["pace"]
        self.adamw.step()
        self.applied.after_step(self.step)
        self.adamw.zero_grad(set_to_none=True)
        self.step += 1
        values = {"train_loss": loss, "learning_rate": rate, "grad_norm": norm}
        values |= {name: total / len(chosen) for name, total in sums.items()}
        return StepReport(step=self.step, of=self.steps, tokens=tokens, values=values)

    def _accumulate(self, chosen: Sequence[int]) -> tuple[float, int, dict[str, float]]:
        """Leave the gradient of the batch's mean loss in the parameters; return loss, tokens seen and curve sums."""
        batch = [self.examples[i] for i in chosen]
        weight = self.objective.weight(batch)
        loss, tokens, sums, start = 0.0, 0, dict[str, float](), 0
        for group in within(batch, TOKEN_CAP[self.device.type]):
            rows = lay_out([sequence for example in group for sequence in example], self.device)
            reference = None
            if self.reference is not None:
                reference = self.reference[list(chosen[start : start + len(group)])].flatten()
            part = self.objective.loss(target_logps(self.applied.model, rows), rows, reference)
            mean = (part.total / part.total.new_tensor(weight)).sum()
            mean.backward()
            loss += float(mean.detach())
            tokens += rows.ids_1T.shape[1]
            start += len(group)
            for name, value in part.sums.items():
                sums[name] = sums.get(name, 0.0) + value
        return loss, tokens, sums

    def _penalise(self) -> float:
        """Add the gradient of the update's own penalty; return the penalty."""
        penalty = self.applied.penalty()
        if penalty is None:
            return 0.0
        penalty.backward()
        return float(penalty.detach())

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that `restore` needs, but the step."""
        tensors: dict[str, torch.Tensor] = {f"weights.{name}": p for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            if moments := self.adamw.state.get(parameter):
                tensors[f"moment1.{name}"] = moments["exp_avg"]
                tensors[f"moment2.{name}"] = moments["exp_avg_sq"]
        if self.reference is not None:
            tensors["reference"] = self.reference
        return tensors | {f"update.{name}": tensor for name, tensor in self.applied.state().items()}

    def restore(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Continue from a state saved after `step` steps."""
        self.step = step
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"weights.{name}"])
                if f"moment1.{name}" in tensors:
                    self.adamw.state[parameter] = {
                        "step": torch.tensor(float(step)),
                        "exp_avg": tensors[f"moment1.{name}"].to(parameter.device, copy=True),
                        "exp_avg_sq": tensors[f"moment2.{name}"].to(parameter.device, copy=True),
                    }
        if "reference" in tensors:
            self.reference = tensors["reference"].to(self.device)
        own = {name: tensor for name, tensor in tensors.items() if name.startswith("update.")}
        self.applied.restore({name.removeprefix("update."): tensor for name, tensor in own.items()})


@dataclass(frozen=True, slots=True)
class Pack:
    """Members step in turn, each on its own parameters."""

    members: tuple[Member, ...]

    @property
    def done(self) -> bool:
        return all(member.done for member in self.members)
