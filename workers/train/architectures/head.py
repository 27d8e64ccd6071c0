"""The output head of an encoder that was saved without one, as sentence embedders are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel

from luthier.errors import Infeasible


@torch.no_grad()
def start_head(model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Give the parameters that are `missing` in the saved model a start that draws nothing at random: the transform's
    matrix is the identity, its norm scales by one, biases are zero; the decoder is tied to the token embeddings.

    What the family computes between the two (BERT's GELU) stays. Raises Infeasible for a head of any other form.
    """
    parameters = dict(model.named_parameters())
    for name in set(missing) & parameters.keys():
        parameter = parameters[name]
        if parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]:
            torch.nn.init.eye_(parameter)
        elif parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            shape = " × ".join(map(str, parameter.shape))
            raise Infeasible(f"{type(model).__name__} was saved without {name}, {shape}, which cannot be started")
