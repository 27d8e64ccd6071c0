"""A pack: trials that share base and architecture and are trained by one loop. A solo trial is a pack of one.

Each member keeps its own parameters, optimiser, schedule, clipping, data order and objective; nothing is shared that
could let one member's numbers reach another's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModelForCausalLM
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel

from luthier.design import Optimiser
from luthier.errors import Infeasible, TrialFailed
from luthier.trial import TRAIN_LOSS
from workers.train.algorithms import Example, Objective
from workers.train.algorithms.base import Batch, Headed
from workers.train.data.padding_free import UnpaddedRows, lay_out, within
from workers.train.forward import TOKEN_CAP, CausalModel, target_logps
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
        self.optimiser = optimiser
        self.seed = seed
        self.own = objective.parameters(_plain(applied.model), seed) if isinstance(objective, Headed) else {}
        self.parameters = applied.trainable() | self.own
        self.device = applied.model.device
        self.order = data_order(len(examples), optimiser.epochs, seed)
        self.steps = math.ceil(len(self.order) / optimiser.batch_size)
        self.step = 0
        self.updates = 0  # steps but for those that had nothing to learn from
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
        self.first: dict[str, torch.Tensor] = {}  # what the moving parameters were when the stage started
        applied.begin(self.steps)

    @property
    def model(self) -> CausalModel:
        return self.applied.model

    @property
    def step_seed(self) -> int:
        return self.seed * 1_000_003 + self.step

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    def keep_reference(self) -> None:
        """The present weights are the reference from now on: keep of them what the objective compares with."""
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
        scores: list[torch.Tensor] = []
        for group in within(examples, TOKEN_CAP[self.device.type]):
            rows = lay_out([tokens for example in group for tokens in example], self.device)
            targets = [sum(tokens.targets for tokens in example) for example in group]
            scores.extend(target_logps(self.model, rows).split(targets))
        return scores

    @torch.no_grad()
    def reference_logps(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        self._exchange()
        try:
            return self.logps(examples)
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """Let the moving parameters and what they were at first change places."""
        for name, parameter in self.parameters.items():
            parameter.data, self.first[name] = self.first[name], parameter.data

    def advance(self) -> StepReport:
        """One optimiser step; none is taken where the batch turns out empty. Raises TrialFailed when the loss stops
        being a number."""
        batch = self.optimiser.batch_size
        chosen = self.order[self.step * batch : (self.step + 1) * batch]
        made = self._batch(chosen)
        rate = learning_rate(self.optimiser, self.step, self.steps)
        tokens, values = self._learn(made, rate) if made.examples else (0, {TRAIN_LOSS: 0.0, "grad_norm": 0.0})
        self.step += 1
        values = {**values, "learning_rate": rate, **made.values}
        return StepReport(step=self.step, of=self.steps, tokens=tokens, values=values)

    def _learn(self, made: Batch, rate: float) -> tuple[int, dict[str, float]]:
        """Move the parameters; the tokens learnt from, and curve values."""
        loss, tokens, sums = self._accumulate(made)
        loss += self._penalise()
        norm = float(clip_grad_norm_(self.parameters.values(), MAX_GRAD_NORM))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrialFailed(f"training diverged: loss {loss:g}, gradient norm {norm:g} at step {self.step + 1}")
        for group in self.adamw.param_groups:
            group["lr"] = rate * group["pace"]
        self.adamw.step()
        self.applied.after_step(self.step)
        self.adamw.zero_grad(set_to_none=True)
        self.updates += 1
        return tokens, {
            TRAIN_LOSS: loss,
            "grad_norm": norm,
            **{name: total / len(made.examples) for name, total in sums.items()},
        }

    def _batch(self, chosen: Sequence[int]) -> Batch:
        drawn = [self.examples[i] for i in chosen]
        if self.reference is not None:
            return Batch(examples=drawn, signals=[self.reference[i] for i in chosen])
        return self.objective.batch(drawn, self)

    def _accumulate(self, batch: Batch) -> tuple[float, int, dict[str, float]]:
        """Leave the gradient of the batch's mean loss in the parameters; return loss, tokens seen and curve sums."""
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
        if isinstance(self.objective, Headed):
            return self.objective.read(_plain(self.model), self.own, rows)
        return target_logps(self.model, rows)

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
        tensors |= {f"first.{name}": tensor for name, tensor in self.first.items()}
        if self.updates != self.step:
            tensors["updates"] = torch.tensor(self.updates)
        return tensors | {f"update.{name}": tensor for name, tensor in self.applied.state().items()}

    def restore(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Continue from a state saved after `step` steps."""
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
        own = {name: tensor for name, tensor in tensors.items() if name.startswith("update.")}
        self.applied.restore({name.removeprefix("update."): tensor for name, tensor in own.items()})


def _plain(model: CausalModel) -> PreTrainedModel:
    """Raises Infeasible for a model with virtual tokens: no objective with a head of its own is for them."""
    if isinstance(model, PeftModelForCausalLM):
        raise Infeasible("virtual tokens are no weights of a model that a head could be put on")
    return model


@dataclass(frozen=True, slots=True)
class Pack:
    """Members step in turn, each on its own parameters."""

    members: tuple[Member, ...]

    @property
    def done(self) -> bool:
        return all(member.done for member in self.members)
