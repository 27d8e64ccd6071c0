"""The registry of environments: Luthier's own, and those of installed packages.

A package registers an environment by an entry point of the group `luthier.environments`. The name of the entry point is
the environment's. Its object is called with the options as keyword arguments and returns an `Environment`. The first
line of its docstring is the summary, and its signature defines the options.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from luthier.environments.base import Environment
from luthier.environments.checked import Guarded
from luthier.environments.tools import Move, Store
from luthier.errors import UserError
from luthier.task import EnvironmentSpec

GROUP: Final = "luthier.environments"
GYM: Final = "reasoning_gym/"
_TOOLS: Final[Mapping[str, Callable[..., Environment]]] = {"tools/move": Move, "tools/store": Store}
_NAME: Final = "task.environment.name"
_OPTIONS: Final = "task.environment.options"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A registered environment: its summary and its options."""

    name: str
    summary: str
    options: type[BaseModel]
    build: Callable[..., Environment]


def make(spec: EnvironmentSpec) -> Environment:
    """Return the environment with these options; its episodes end after `max_turns` answers.

    Raises UserError for an unknown name, an unknown option, or an invalid value.
    """
    offer = find(spec.name)
    try:
        options = offer.options.model_validate(spec.options)
        environment = offer.build(**dict(options))
    except ValidationError as error:
        raise _wrong_option(offer, error) from error
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"{_OPTIONS}: {spec.name} does not accept these options: {error}", param=_OPTIONS) from error
    return Guarded(environment, spec)


def find(name: str) -> Offer:
    """Return the environment with this name. Raises UserError, with similar names, if there is none."""
    if name in _TOOLS:
        return _offer(name, _TOOLS[name])
    for point in entry_points(group=GROUP, name=name):
        return _loaded(point)
    from luthier.environments import reasoning_gym  # its package takes seconds to import

    if name.startswith(GYM):
        if (task := name.removeprefix(GYM)) in reasoning_gym.REFUSED:
            raise UserError(f"{_NAME}: {name} is not supported: {reasoning_gym.REFUSED[task]}.", param=_NAME)
        if task in reasoning_gym.tasks():
            return _gym(task)
    known = [*_TOOLS, *entry_points(group=GROUP).names, *(GYM + task for task in reasoning_gym.tasks())]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else "GET /v1/environments lists them all."
    raise UserError(f"{_NAME}: there is no environment {name!r}. {hint}", param=_NAME)


def offers() -> Iterator[Offer]:
    """Yield every environment, without those of packages that cannot be loaded."""
    from luthier.environments import reasoning_gym  # its package takes seconds to import

    for name, build in _TOOLS.items():
        yield _offer(name, build)
    for point in entry_points(group=GROUP):
        try:
            yield _loaded(point)
        except UserError:  # `find` raises it when the environment is asked for by name
            continue
    for task in reasoning_gym.tasks():
        yield _gym(task)


def _loaded(point: EntryPoint) -> Offer:
    try:
        return _offer(point.name, point.load())
    except Exception as error:  # importing third-party code may raise anything
        raise UserError(
            f"{_NAME}: {point.name} ({point.value}) cannot be loaded: {type(error).__name__}: {error}", param=_NAME
        ) from error


def _offer(name: str, build: Callable[..., Environment]) -> Offer:
    subject = build.__init__ if isinstance(build, type) else build  # type: ignore[misc]  # only inspected
    hints = get_type_hints(subject, include_extras=True)
    parameters = inspect.signature(build).parameters.values()
    fields = {p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default) for p in parameters}
    return Offer(name=name, summary=_first_line(build), options=_options(fields), build=build)


def _gym(task: str) -> Offer:
    from luthier.environments import reasoning_gym  # its package takes seconds to import

    return Offer(
        name=GYM + task,
        summary=_first_line(reasoning_gym.dataset_class(task)),
        options=_options(reasoning_gym.options(task)),
        build=lambda **options: reasoning_gym.Gym(task, **options),
    )


def _options(fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    made: type[BaseModel] = create_model("Options", __config__=config, **dict(fields))  # type: ignore[call-overload]
    return made


def _first_line(subject: object) -> str:
    lines = (inspect.getdoc(subject) or "").strip().splitlines()
    return lines[0] if lines else ""


def _wrong_option(offer: Offer, error: ValidationError) -> UserError:
    problem = error.errors()[0]
    option = ".".join(map(str, problem["loc"]))
    field = f"{_OPTIONS}.{option}"
    legal = ", ".join(offer.options.model_fields) or "none"
    match problem["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(option, offer.options.model_fields, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            return UserError(f"{field}: {offer.name} has no option {option!r}. {hint}Its options: {legal}", param=field)
        case "missing":
            return UserError(f"{field}: {offer.name} needs the option {option!r}", param=field)
        case _:
            return UserError(f"{field}: {problem['msg']}, found {problem['input']!r:.80}", param=field)
