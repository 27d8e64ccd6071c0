"""Scripts with the client, and commands that only ask a service, start without the heavy rooms."""

from __future__ import annotations

import subprocess
import sys

import pytest

import luthier

LIGHT = """
import sys
import luthier
assert not {"httpx", "pydantic"} & set(sys.modules)
from luthier import Client
from luthier.client import Client as same
assert Client is same
from luthier.cli import app
print(*{"torch", "transformers", "fastapi", "sqlalchemy", "optuna", "scipy", "service", "search"} & set(sys.modules))
"""


def test_the_client_and_the_command_line_load_neither_the_service_nor_what_trains() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", LIGHT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stdout + done.stderr


def test_a_name_that_is_not_there_is_refused_as_anywhere() -> None:
    with pytest.raises(AttributeError, match="module 'luthier' has no attribute 'Cleint'"):
        _ = luthier.Cleint
