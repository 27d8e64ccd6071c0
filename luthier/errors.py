"""Every error Luthier raises on purpose.

    LuthierError                      500  server_error
    ├── UserError (ValueError)        400  invalid_request_error: the caller can put it right
    │   ├── DatasetError              400  lists the faults, each with its row and field
    │   ├── IllegalDesign             400  a combination of the axes that cannot work, and why
    │   ├── GraderFault               400  a grader that cannot grade, or an answer that cannot be graded
    │   ├── NotFound (LookupError)    404
    │   ├── Conflict                  409  the thing is not in a state that allows this
    │   ├── TooLarge                  413
    │   ├── Unauthenticated           401  a key is needed, and there was none, or not a good one
    │   ├── Forbidden                 403  the key does not allow this
    │   └── TooManyRequests           429  says after how many seconds to come again
    ├── LeaseLost                     409  the trial belongs to somebody else by now
    ├── Stopped                       409  the service asked a trial to stop: cancelled, or the budget is spent
    ├── Interrupted                   503  the worker is shutting down: the trial is given back
    │   └── Paused                    503  the trial stands at its rung: it is given back until it is promoted
    ├── Infeasible                    422  the design does not fit the device
    ├── TrialFailed (RuntimeError)    500  training or judging went wrong (a loss that is not a number, …)
    ├── MissingMetric (LookupError)   500  the judge's contract was broken: never replaced by another metric
    ├── BlobMissing (LookupError)     404
    └── Unreachable (ConnectionError) 503  the service does not answer

Each class carries its HTTP status, so that the service needs one handler and clients can rebuild the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal


class LuthierError(Exception):
    """Root of the tree. `message` is written for a person; `param` names the field or option at fault."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    @property
    def code(self) -> str:
        """The class's name in snake case, as it travels in JSON."""
        name = type(self).__name__
        return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))

    def body(self) -> dict[str, Any]:
        """The one JSON shape of an error: OpenAI's."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(cls: type[LuthierError], state: dict[str, Any]) -> LuthierError:
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class UserError(LuthierError, ValueError):
    status = 400
    type = "invalid_request_error"


class DatasetError(UserError):
    """A file that cannot be used as it is. `faults` are the first 20, ready to be shown one a line."""

    def __init__(self, message: str, *, faults: Sequence[str] = (), param: str | None = "file") -> None:
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]), param=param)
        self.faults = tuple(faults)


class IllegalDesign(UserError):
    pass


class GraderFault(UserError):
    """`kind` is the field of OpenAI's `metadata.errors` that reports it."""

    def __init__(
        self,
        message: str,
        *,
        kind: Literal[
            "formula_parse_error",
            "invalid_variable_error",
            "sample_parse_error",
            "other_error",
            "python_grader_runtime_error",
            "python_grader_server_error",
            "model_grader_parse_error",
            "model_grader_refusal_error",
            "model_grader_server_error",
        ] = "other_error",
        param: str | None = "grader",
    ) -> None:
        super().__init__(message, param=param)
        self.kind = kind


class NotFound(UserError, LookupError):
    status = 404


class Conflict(UserError):
    status = 409


class TooLarge(UserError):
    status = 413


class Unauthenticated(UserError):
    status = 401


class Forbidden(UserError):
    status = 403


class TooManyRequests(UserError):
    status = 429

    def __init__(self, message: str, *, retry_after: int = 1, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class LeaseLost(LuthierError):
    status = 409


class Stopped(LuthierError):
    status = 409


class Interrupted(LuthierError):
    status = 503


class Paused(Interrupted):
    pass


class Infeasible(LuthierError):
    status = 422


class TrialFailed(LuthierError, RuntimeError):
    pass


class MissingMetric(LuthierError, LookupError):
    pass


class BlobMissing(LuthierError, LookupError):
    status = 404


class Unreachable(LuthierError, ConnectionError):
    status = 503


def unknown_base_model(
    name: str, registered: Iterable[str], *, param: str = "model", error: type[UserError] = NotFound
) -> UserError:
    """Return the error for a base model that is not registered. It lists the registered ones."""
    known = ", ".join(registered) or "none; add one with `luthier models add NAME FOLDER`"
    return error(f"base model {name!r} is not registered; registered: {known}", param=param)


def tree(root: type[LuthierError] = LuthierError) -> dict[str, type[LuthierError]]:
    """Every class of the tree by its code, for clients that turn a response back into an exception."""
    found: dict[str, type[LuthierError]] = {root("").code: root}
    for child in root.__subclasses__():
        found |= tree(child)
    return found
