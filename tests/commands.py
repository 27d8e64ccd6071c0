"""The command line, run in the test's own process: a process of its own takes most of a second to start."""

from __future__ import annotations

import os
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from subprocess import CompletedProcess
from unittest.mock import patch

from luthier.cli import main


def run(*arguments: str, **environment: str) -> CompletedProcess[str]:
    """Run `luthier` with these arguments, and these variables beside those of the tests."""
    output, errors = StringIO(), StringIO()
    command = ["luthier", *arguments]
    with (
        patch.dict(os.environ, environment),
        patch("sys.argv", command),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return CompletedProcess(command, code, output.getvalue(), errors.getvalue())
