"""`luthier --version` prints the version that pyproject.toml declares."""

from __future__ import annotations

import tomllib
from pathlib import Path

from typer.testing import CliRunner

from luthier.cli import app

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"luthier {PROJECT['version']}\n")


def test_no_command_is_needed_beside_it() -> None:
    assert CliRunner().invoke(app, ["--version", "jobs"]).exit_code == 0
