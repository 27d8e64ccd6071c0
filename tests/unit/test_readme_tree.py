"""The README's tree names every folder of the rooms, and no folder that is not there."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("luthier", "search", "workers", "service")
TREE = (ROOT / "README.md").read_text("utf-8").partition("## How it is built")[2]


def tree_folders() -> Iterator[str]:
    """The folders of the tree, as paths: its indentation says what is inside what."""
    parents: list[tuple[int, str]] = []
    for line in TREE.splitlines():
        name, indent = line.strip().partition(" ")[0], len(line) - len(line.lstrip())
        if indent < 4 or not name.endswith("/"):
            continue
        parents = [(depth, folder) for depth, folder in parents if depth < indent]
        parents.append((indent, name.rstrip("/")))
        yield "/".join(folder for _, folder in parents)


def test_the_tree_is_the_folders_of_the_rooms() -> None:
    packages = {str(path.parent.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    named = {folder for folder in tree_folders() if folder.split("/")[0] in ROOMS}
    assert named == packages - {"workers/templates"}


def test_every_folder_of_the_tree_has_a_line_that_describes_it() -> None:
    described = [line.split(maxsplit=1) for line in TREE.splitlines() if line.startswith("    ") and line.strip()]
    assert all(len(parts) == 2 for parts in described)
