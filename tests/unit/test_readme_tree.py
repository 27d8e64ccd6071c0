"""The README's tree names every module of the rooms."""

from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TREE = (ROOT / "README.md").read_text("utf-8").partition("## How it is built")[2]


@pytest.mark.parametrize("room", ["luthier", "search", "workers", "service", "bench", "demo"])
def test_every_module_of_a_room_is_named(room: str) -> None:
    _, _, rest = TREE.partition(f"\n    {room}/")
    first, *lines = rest.splitlines()
    described = "\n".join([first, *takewhile(lambda line: line.startswith("     "), lines)])
    modules = {path.name for path in (ROOT / room).glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in (ROOT / room).glob("*/__init__.py")}
    assert {name for name in modules | packages if name not in described} == set()


def test_every_module_that_is_named_is_there() -> None:
    words = [word.strip("`(),;:") for word in TREE.split()]
    named = {Path(word).name for word in words if word.endswith(".py")}
    there = {path.name for path in ROOT.glob("*/**/*.py") if ".venv" not in path.parts}
    assert named - there == set()
