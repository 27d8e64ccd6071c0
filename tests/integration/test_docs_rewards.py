"""The examples of docs/tasks-and-rewards.md give what the page says, against a real service."""

import doctest
import json
from pathlib import Path
from typing import Any, get_args

from luthier.task import Grader
from tests.chat_endpoint import chatting
from tests.integration.service_harness import serving

PAGE = Path(__file__).parents[2] / "docs" / "tasks-and-rewards.md"


def _opinion(body: dict[str, Any]) -> str:
    """A model that finds everything 8 of 10, and never quite what it should be."""
    schema = body["response_format"]["json_schema"]["schema"]["properties"]["result"]
    return json.dumps({"reasoning": "", "result": "partly" if "enum" in schema else 8})


def test_every_example_gives_what_the_page_says(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        chatting(_opinion) as chat,
        serving(tmp_path / "home", python_graders=True, grader_base_url=chat.url) as service,
    ):
        given = {"client": service.client}
        examples = doctest.DocTestParser().get_doctest(PAGE.read_text(), given, PAGE.name, str(PAGE), 0)
        results = doctest.DocTestRunner().run(examples, out=said.append)
    assert results.attempted >= 10
    assert results.failed == 0, "".join(said)


def test_every_grader_has_its_section_and_an_example() -> None:
    union, _ = get_args(Grader)
    for kind in get_args(union):
        name = kind.model_fields["type"].default
        _, _, section = PAGE.read_text().partition(f"### `{name}`")
        assert f'"type": "{name}"' in section.partition("\n### ")[0], name
