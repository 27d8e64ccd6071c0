"""docs/tasks-and-rewards.md has an example for every grader; test_docs_commands.py runs them."""

from pathlib import Path
from typing import get_args

from luthier.task import Grader

PAGE = Path(__file__).parents[2] / "docs" / "tasks-and-rewards.md"


def test_every_grader_has_its_section_and_an_example() -> None:
    union, _ = get_args(Grader)
    for kind in get_args(union):
        name = kind.model_fields["type"].default
        _, _, section = PAGE.read_text().partition(f"### `{name}`")
        assert f'"type": "{name}"' in section.partition("\n### ")[0], name
