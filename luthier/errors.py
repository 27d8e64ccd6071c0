"""Every error Luthier raises on purpose.

    LuthierError                      500  server_error
    ├── UserError (ValueError)        400  invalid_request_error: the caller can correct it
    │   ├── DatasetError              400  lists the invalid rows, each with its field
    │   ├── IllegalDesign             400  a combination of design choices that cannot work, and why
    │   ├── GraderFault               400  a grader that cannot grade, or an answer that cannot be graded
    │   ├── NotFound (LookupError)    404
    │   ├── Conflict                  409  the object's state does not allow this
    │   ├── TooLarge                  413
    │   ├── Unauthenticated           401  the API key is missing or not valid
    │   ├── Forbidden                 403  the key's scope does not allow this
    │   └── TooManyRequests           429  carries the seconds after which to retry
    ├── LeaseLost                     409  another worker holds the trial's lease, or the lease expired
    ├── Stopped                       409  the service stops the trial: cancelled, or the budget is spent
    ├── Interrupted                   503  the worker is shutting down and returns the trial
    │   └── Paused                    503  the trial pauses at a rung and is returned until it is promoted
    ├── Infeasible                    422  the design needs too much memory, or cannot start from its base model
    ├── TrialFailed (RuntimeError)    500  training or judging failed (a NaN loss, …)
    ├── MissingMetric (LookupError)   500  the judge did not return a metric that it must return
    ├── BlobMissing (LookupError)     404
    └── Unreachable (ConnectionError) 503  the service does not answer

Each class has its HTTP status. So one handler of the service is enough, and clients can rebuild the class.
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
        """Return the error as JSON in OpenAI's shape."""
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
    """A file that cannot be used. `faults` lists the first 20 problems, one line each."""

    def __init__(self, message: str, *, faults: Sequence[str] = (), param: str | None = "file") -> None:
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]), param=param)
        self.faults = tuple(faults)


class IllegalDesign(UserError):
    pass


class GraderFault(UserError):
    """`kind` is the field of OpenAI's `metadata.errors` that reports this error."""

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
    return error(f"Base model {name!r} is not registered. Registered: {known}.", param=param)


def tree(root: type[LuthierError] = LuthierError) -> dict[str, type[LuthierError]]:
    """Return every class of the tree by its code. Clients use it to turn a response into an exception."""
    found: dict[str, type[LuthierError]] = {root("").code: root}
    for child in root.__subclasses__():
        found |= tree(child)
    return found
