"""Calls without results are counted, but one result without an id may be that of several calls."""

import pytest

from luthier.dataset.tool_results import unanswered_calls

CALLS = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name}} for name in "abc"]}
SAID = {"role": "assistant", "content": "Done."}


@pytest.mark.parametrize(
    ("results", "missing"),
    [
        ([], 3),
        ([{"role": "tool", "content": "1"}], 0),
        ([{"role": "tool", "content": "1", "tool_call_id": "x"}], 2),
        ([{"role": "tool", "content": "1"}] * 2, 1),
        ([{"role": "tool", "content": "1"}] * 3, 0),
    ],
)
def test_calls_without_results_are_counted(results: list[dict[str, str]], missing: int) -> None:
    assert unanswered_calls([CALLS, *results, SAID]) == missing
    assert unanswered_calls([CALLS, *results, SAID, CALLS]) == missing
