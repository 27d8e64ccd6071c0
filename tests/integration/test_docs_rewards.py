"""The examples of docs/tasks-and-rewards.md give what the page says, against a real service."""

import doctest
from pathlib import Path
from typing import get_args

from luthier.task import Grader
from tests.integration.service_harness import Service

pytest_plugins = ("tests.integration.service_fixtures",)

PAGE = Path(__file__).parents[2] / "docs" / "tasks-and-rewards.md"


def test_every_example_gives_what_the_page_says(bare: Service) -> None:
    examples = doctest.DocTestParser().get_doctest(PAGE.read_text(), {"client": bare.client}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    results = doctest.DocTestRunner().run(examples, out=said.append)
    assert results.attempted >= 10
    assert results.failed == 0, "".join(said)


def test_every_grader_has_its_section_and_an_example() -> None:
    union, _ = get_args(Grader)
    for kind in get_args(union):
        name = kind.model_fields["type"].default
        _, _, section = PAGE.read_text().partition(f"### `{name}`")
        assert f'"type": "{name}"' in section.partition("\n### ")[0], name
