"""Compare mathematical expressions in a child process that can be killed (`luthier.graders.math_process`)."""

from __future__ import annotations

from typing import Final

from luthier.errors import GraderFault
from luthier.graders.subprocess import Child

MAX_CHARACTERS: Final = 20_000

_comparer: Final = Child("math", "-P", "-m", "luthier.graders.math_process")


def equal(given: str, reference: str, float_rounding: int) -> bool:
    """Whether two texts end with the same mathematics. Raises GraderFault where that cannot be said.

    An answer is read from its end: only its last MAX_CHARACTERS count.
    """
    answer = _comparer.ask([given[-MAX_CHARACTERS:], reference[-MAX_CHARACTERS:], float_rounding])
    match answer:
        case "":
            raise GraderFault("the answer and the reference could not be compared within the limits of time and memory")
        case "null":
            raise GraderFault("the reference holds no mathematical expression")
        case _:
            return answer == "true"
