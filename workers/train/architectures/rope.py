"""A longer context by stretched rotary positions: what a token far away looks like is made of what was learnt near by.

`linear` divides every position by the factor (position interpolation, Chen et al. 2023). `yarn` divides the slow
frequencies only and sharpens attention a little (Peng et al. 2023), which needs less training.

There is no dynamic rule, whose factor follows the longest row of a call: rows are trained and judged end to end,
unpadded, and a row's score must not depend on its neighbours.
"""

from __future__ import annotations

import copy

from transformers import PretrainedConfig

from luthier.design import RopeRule
from luthier.errors import Infeasible


def stretch(config: PretrainedConfig, factor: float, rule: RopeRule) -> PretrainedConfig:
    """The config with a context of `factor` times as many tokens. The weights are the same.

    Raises Infeasible where the positions are not plain rotary ones, the same in every layer.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "default":
        found = f"{rope['rope_type']} ones" if "rope_type" in rope else "none that all layers share"
        raise Infeasible(
            f"{config.model_type} models need plain rotary positions to be stretched; this one has {found}"
        )
    context = config.max_position_embeddings
    settings = {"rope_type": rule, "factor": factor}
    if rule == "yarn":
        settings["original_max_position_embeddings"] = context
    stretched = copy.deepcopy(config)
    stretched.max_position_embeddings = round(context * factor)
    stretched.rope_parameters = rope | settings
    return stretched
