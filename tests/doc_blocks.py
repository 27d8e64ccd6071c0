"""The fenced blocks of a page, and what becomes of them.

A block is executed, unless a comment in the line before its fence (or before the one of the page) says otherwise:

    <!-- not run: WHY -->                     it needs what is not here: a GPU, a container engine, an hour
    <!-- not run on this page: WHY -->        stands once, and holds for all blocks after it
    <!-- test: NAME -->                       the test module of this name runs it, or one that names page and block
    <!-- file: NAME -->                       the page's reader writes it into a file, and so does the test
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    page.relative_to(ROOT).as_posix(): page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
SHELL, PYTHON = ("sh", "bash", "console", "shell"), ("python", "py")

_MARK = re.compile(r"<!-- (not run|test|file): (.+?) -->")
_BLOCK = re.compile(
    r"(?:^(?P<mark><!-- [^\n]*? -->)\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Block:
    language: str
    text: str
    line: int
    mark: str | None  # which comment stands before it
    said: str  # what the comment says

    @property
    def command(self) -> bool:
        return self.language in SHELL + PYTHON


def blocks(page: str) -> list[Block]:
    """All blocks of a page's text, in their order."""
    rest = re.search(r"<!-- not run on this page: (.+?) -->", page)
    found = []
    for match in _BLOCK.finditer(page):
        mark = _MARK.fullmatch(match["mark"] or "")
        kind, said = (mark[1], mark[2]) if mark else (None, "")
        if kind is None and rest is not None and rest.start() < match.start():
            kind, said = "not run", rest[1]
        line = page.count("\n", 0, match.start("language")) + 1
        found.append(Block(language=match["language"], text=match["text"], line=line, mark=kind, said=said))
    return found


class Shell:
    """One shell that keeps its variables from block to block, and stops at the first command that fails."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc", "-euo", "pipefail"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, commands: str) -> str:
        """What they print. They must succeed."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write("{\n" + commands + "\n} </dev/null\necho; echo '--- done ---'\n")
        self._shell.stdin.flush()
        printed = ""
        for line in self._shell.stdout:
            if line == "--- done ---\n":
                return printed
            printed += line
        raise AssertionError(f"these commands fail:\n{commands}\nthey print:\n{printed}")

    def close(self) -> None:
        self._shell.communicate()
