"""The table of a job's trials, and the words and figures of pages."""

from datetime import UTC, datetime

import pytest

from luthier.algorithms import Dpo, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import UserError
from luthier.metrics import cell
from luthier.updates import Full, Lora, RsLora
from service.dashboard import exports, layout, leaderboard
from service.dashboard.leaderboard import View, differences, flat, numbers
from tests.unit.report_samples import case


def stage(rank: int, rate: float = 1e-3) -> Stage:
    return Stage(algorithm=Sft(), update=Lora(rank=rank), optimiser=Optimiser(learning_rate=rate))


def design(*stages: Stage, **edits: int) -> Design:
    return Design(architecture=Architecture(base="tiny", **edits), stages=stages)


def test_only_what_differs_is_told_apart_and_the_rest_is_common() -> None:
    differing, common = differences([flat(design(stage(8))), flat(design(stage(16, 2e-3), layers=4))])
    assert differing == ("rank", "learning rate", "layers", "depth rule")
    assert ("algorithm", "sft") in common
    assert ("placement", "all") in common
    assert {name for name, _ in common}.isdisjoint(differing)


def test_designs_that_are_alike_differ_in_nothing() -> None:
    differing, common = differences([flat(design(stage(8))), flat(design(stage(8)))])
    assert differing == ()
    assert dict(common) == flat(design(stage(8)))


def test_each_of_several_stages_has_its_own_names() -> None:
    second = Stage(algorithm=Dpo(beta=0.2), update=Full(), optimiser=Optimiser(learning_rate=1e-5))
    found = flat(design(stage(8), second))
    assert (found["stage 1 rank"], found["stage 2 beta"], found["stage 2 update"]) == ("8", "0.2", "full")
    assert "rank" not in found


def test_the_update_itself_differs_before_its_settings() -> None:
    other = Stage(algorithm=Sft(), update=RsLora(rank=8), optimiser=Optimiser(learning_rate=1e-3))
    differing, _ = differences([flat(design(stage(8))), flat(design(other))])
    assert differing == ("update", "alpha")


def test_an_address_says_only_what_is_not_usual_and_starts_at_the_first_page() -> None:
    asked = View(sort="score", page=3, picked=(4, 9))
    assert asked.address(page=4) == "?sort=score&page=4&picked=4%2C9"
    assert asked.sorted_by("score") == "?sort=score&order=descending&picked=4%2C9"
    assert asked.sorted_by("standing") == "?picked=4%2C9"
    assert asked.toggled(4) == "?sort=score&page=3&picked=9"
    assert View(differences=True).address(q="lora") == "?q=lora&differences=1"


def test_only_numbers_can_be_chosen_and_only_so_many() -> None:
    assert numbers("3,17,3") == (3, 17)
    assert len(numbers(",".join(map(str, range(50))))) == leaderboard.MOST_PICKED
    with pytest.raises(UserError, match="3;drop") as refused:
        numbers("3;drop")
    assert refused.value.param == "picked"


def test_rows_stand_by_their_place_and_what_was_not_scored_comes_last() -> None:
    for order in ("ascending", "descending"):
        found = leaderboard.table(case(), View(sort="score", order=order), None).rows
        scores = [row.score for row in found]
        known = [score for score in scores if score is not None]
        assert scores[: len(known)] == sorted(known, reverse=order == "descending")
    places = [row.place for row in leaderboard.table(case(), View(), None).rows]
    ranked = [place for place in places if place is not None]
    assert places[: len(ranked)] == list(range(1, len(ranked) + 1))


def test_every_word_of_a_search_is_in_what_is_found() -> None:
    everything = leaderboard.table(case(), View(), None)
    found = leaderboard.table(case(), View(q="Lora sft"), None)
    assert 0 < found.found < everything.total
    assert all("lora" in row.summary and "sft" in row.summary for row in found.rows)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0.42, "0.4 s"),
        (42, "42 s"),
        (190, "3 min 10 s"),
        (300, "5 min"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float | None, words: str) -> None:
    assert layout.duration(seconds) == words


def test_scores_have_four_digits_each_so_that_columns_line_up() -> None:
    assert [cell(value) for value in (1.41, 0.5, 123.456, 123456.7, None)] == [
        "1.410",
        "0.5000",
        "123.5",
        "123457",
        "–",
    ]
    assert layout.percent(-0.4113) == "−41.1 %"


def test_moments_are_written_for_machines_in_utc() -> None:
    assert layout._moment(datetime(2026, 3, 1, 12, 30, tzinfo=UTC)) == "2026-03-01T12:30:00Z"


def test_no_cell_of_a_spreadsheet_is_run() -> None:
    text = exports.as_csv([{"name": "=cmd()", "score": -1.5}, {"name": "fine", "extra": "a,b"}])
    assert text == 'name,score,extra\n\'=cmd(),-1.5,\nfine,,"a,b"\n'
