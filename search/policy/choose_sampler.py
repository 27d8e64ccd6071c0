"""The samplers that `search.sampler` names: Luthier's, Optuna's, and those that the operator allows by import path."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import optuna
from optuna.samplers import BaseSampler

from luthier.errors import UserError
from search.policy.sampler import LuthierSampler
from search.space.space import Space

LUTHIER: Final = "luthier"
PARAM: Final = "search.sampler"
# By name, from the space and a seed. Luthier's gets no priors: a job tries these first with any sampler.
SAMPLERS: Final[Mapping[str, Callable[[Space, int], BaseSampler]]] = {
    LUTHIER: lambda space, seed: LuthierSampler(space, seed, priors_first=0),
    "tpe": lambda space, seed: optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed),
    "gp": lambda space, seed: optuna.samplers.GPSampler(seed=seed),
    "random": lambda space, seed: optuna.samplers.RandomSampler(seed=seed),
}


def check_sampler(name: str, allowed: Collection[str] = ()) -> None:
    """Refuse a sampler that is neither in SAMPLERS nor among the `allowed` import paths, or that cannot be made.

    Raises UserError.
    """
    if name not in SAMPLERS and name not in allowed:
        raise UserError(
            f"{PARAM} {name!r} is not known. Choose from {', '.join((*SAMPLERS, *sorted(allowed)))}; the setting "
            "LUTHIER_SAMPLERS allows others by import path.",
            param=PARAM,
        )
    if name == "gp" and find_spec("torch") is None:
        raise UserError(f"{PARAM} 'gp' needs torch, which is not installed with the service.", param=PARAM)
    if name not in SAMPLERS:
        _imported(name)


def make_sampler(name: str, space: Space, seed: int, step: int) -> BaseSampler:
    """Return the sampler for the proposal after `step` trials. Raises UserError for an import path that fails."""
    if name == LUTHIER:  # counts the trials of the study itself
        return SAMPLERS[name](space, seed)
    drawn = random.Random(f"{seed}/{step}").getrandbits(31)
    return SAMPLERS[name](space, drawn) if name in SAMPLERS else _imported(name)(seed=drawn)


def _imported(path: str) -> Callable[..., BaseSampler]:
    """Return the sampler class at an import path such as `package.module:Class`."""
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{PARAM} {path!r} cannot be imported: {error}", param=PARAM) from error
    if not (isinstance(found, type) and issubclass(found, BaseSampler)):
        raise UserError(f"{PARAM} {path!r} is not a subclass of optuna.samplers.BaseSampler.", param=PARAM)
    return found
