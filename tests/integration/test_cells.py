"""Every cell of the design space trains: nothing is offered that was not seen to work.

`make test` trains a covering set of the cells, `make test-all` and `make cells` train all of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luthier.cli import app
from search.methods import ALGORITHMS, UPDATES
from search.space.docs_page import page
from search.space.verified import recorded
from tests.cells import EDITS, Cell, cells, prove
from tests.covering import covering, params, proved_by

PAGE = Path(__file__).parents[2] / "docs" / "design-space.md"


def proves(cell: Cell) -> set[str]:
    return proved_by(cell.recipe, cell.update, cell.edit)


@pytest.mark.parametrize("cell", params(cells(), proves))
def test_every_legal_cell_learns_moves_what_it_declares_saves_and_resumes(cell: Cell, tmp_path: Path) -> None:
    seen = prove(cell, tmp_path)
    assert seen.better, f"{seen.metric} went from {seen.untuned} to {seen.trained}"
    assert seen.as_declared
    assert seen.moved > 0
    assert seen.reloads
    assert seen.resumed


def test_the_covering_set_has_every_algorithm_update_edit_and_metric() -> None:
    covered = covering(cells(), proves)
    with_lora = {name for cell in covered if cell.update == "lora" for name in cell.recipe.split("+")}
    assert with_lora == {rule.kind for rule in ALGORITHMS}
    assert {cell.update for cell in covered if cell.recipe == "sft"} == {rule.kind for rule in UPDATES}
    assert {cell.edit for cell in covered} == {"", *EDITS}
    tried = {(cell.recipe, cell.update, cell.edit) for cell in covered}
    metrics = {seen.metric for seen in recorded() if (seen.program, seen.update, seen.edit) in tried}
    assert metrics == {seen.metric for seen in recorded()}


def test_the_record_has_every_legal_cell_and_no_other_and_all_passed() -> None:
    assert [(seen.program, seen.update) for seen in recorded()] == [(cell.recipe, cell.update) for cell in cells()]
    assert [seen for seen in recorded() if not seen.passes] == []


def test_the_page_on_the_design_space_is_what_the_table_says() -> None:
    assert PAGE.read_text() == page(), "print it again: python -m search.space.docs_page > docs/design-space.md"


def test_the_command_line_shows_the_cells_with_their_evidence() -> None:
    shown = CliRunner().invoke(app, ["cells", "--algorithm", "dpo", "--update", "lora"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    [line] = [line for line in shown.output.splitlines() if line.split()[:1] == ["lora"]]
    assert "bit for bit" in line
    assert "passes" in line
    listed = CliRunner().invoke(app, ["cells", "--json"])
    assert [seen["program"] for seen in json.loads(listed.output)] == [seen.program for seen in recorded()]
