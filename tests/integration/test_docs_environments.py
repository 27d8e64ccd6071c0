"""The worked example of docs/environments.md, installed as the page says, makes rows, rewards and jobs."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luthier.cli import app
from luthier.environments import make
from luthier.environments.reasoning_gym import REFUSED, tasks
from luthier.errors import UserError
from luthier.task import EnvironmentSpec
from tests.conformance_environments import Conformance
from tests.doc_blocks import blocks
from tests.integration.service_harness import serving

PAGE = (Path(__file__).parents[2] / "docs" / "environments.md").read_text("utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's package as an installer would leave it, on the path of this process and of those it starts."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "lamps.py").write_text(FILES["lamps.py"])
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    about = folder / f"{project['name']}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    [(group, points)] = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), "home/gone = nowhere:Gone"]
    (about / "entry_points.txt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield folder
    sys.modules.pop("lamps", None)


class TestLamps(Conformance):
    name = "home/lamps"


def test_the_page_counts_the_tasks_and_names_those_that_are_not_offered() -> None:
    assert f"{len(tasks())} tasks" in PAGE
    assert all(f"`{task}`" in PAGE for task in REFUSED)


def test_options_are_those_of_the_class() -> None:
    with pytest.raises(UserError, match=r"options\.lamps: .*less than or equal to 9, found 10"):
        make(EnvironmentSpec(name="home/lamps", options={"lamps": 10}))


def test_a_package_that_cannot_be_loaded_says_so_when_it_is_named() -> None:
    with pytest.raises(UserError, match=r"home/gone \(nowhere:Gone\) cannot be loaded: ModuleNotFoundError"):
        make(EnvironmentSpec(name="home/gone"))


def test_a_job_learns_from_it(tmp_path: Path) -> None:
    [command] = [block.text for block in blocks(PAGE) if block.said == "test_docs_environments"]
    with serving(tmp_path / "home") as service:
        service.add_model()
        submitted = CliRunner().invoke(app, shlex.split(command)[1:], env={"LUTHIER_SERVER": service.url})
        assert submitted.exit_code == 0, submitted.output
        [job] = service.client.jobs()
        assert job.luthier.kind == "chat"
        assert job.luthier.task.environment is not None
        assert job.luthier.task.environment.options == {"lamps": 5}
        assert service.client.file(job.training_file).filename == "home-lamps-256.jsonl"
