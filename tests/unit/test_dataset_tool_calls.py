"""Calls of tools, their results and the definitions, as different programs write them."""

from pathlib import Path

import pyarrow
import pytest

from luthier.dataset import load
from luthier.errors import DatasetError
from tests.unit.good_file import parquet_table
from tests.uploads import Row, load_rows

ASKED = {"role": "user", "content": "How deep is the Ouse at Ely?"}
SAID = {"role": "assistant", "content": "Two metres."}
DEPTH = {"river": "Ouse", "unit": None}


def _chat(calls: list[Row], *results: Row, **more: object) -> Row:
    return {"messages": [ASKED, {"role": "assistant", "tool_calls": calls}, *results, SAID], **more}


def _calls(*names: str, ids: bool = False) -> list[Row]:
    return [{"function": {"name": name, "arguments": "{}"}} | ({"id": f"id-{name}"} if ids else {}) for name in names]


def _result(content: str, **more: object) -> Row:
    return {"role": "tool", "content": content, **more}


@pytest.mark.parametrize("name", ["arguments", "args", "parameters", "input"])
@pytest.mark.parametrize("bare", [True, False])
def test_the_arguments_of_a_call_are_read_under_each_of_their_names(name: str, bare: bool, tmp_path: Path) -> None:
    function = {"name": "depth", name: DEPTH}
    call = {"id": "c1", "type": "tool_use", **function} if bare else {"id": "c1", "function": function}
    [row, *_] = load_rows(tmp_path, [_chat([call], _result("2", tool_call_id="c1"))] * 12).rows
    read = {"type": "function", "id": "c1", "function": {"name": "depth", "arguments": DEPTH}}
    assert row["messages"][1]["tool_calls"] == [read]


def test_sharegpts_calls_have_such_arguments_too(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "How deep?"},
        {"from": "tool_call", "value": '[{"name": "depth", "args": {"river": "Cam"}}]'},
        {"from": "tool_response", "value": "1"},
        {"from": "gpt", "value": "One metre."},
    ]
    [row, *_] = load_rows(tmp_path, [{"conversations": turns}] * 12).rows
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"river": "Cam"}
    assert load_rows(tmp_path, [{"conversations": turns}] * 12).notes == ()


def test_an_empty_text_holds_no_calls(tmp_path: Path) -> None:
    [row, *_] = load_rows(tmp_path, [{"messages": [ASKED, SAID | {"tool_calls": " "}]}] * 12).rows
    assert row["messages"][1] == SAID


@pytest.mark.parametrize("empty", [None, "", {}, "{}"])
def test_no_arguments_are_an_empty_object(empty: object, tmp_path: Path) -> None:
    call = {"function": {"name": "now", "arguments": empty}}
    [row, *_] = load_rows(tmp_path, [_chat([call])] * 12).rows
    assert row["messages"][1]["tool_calls"][0]["function"] == {"name": "now", "arguments": {}}


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ({"name": "depth", "params": {"river": "Ouse"}}, r"tool_calls\[0\]\.function`: .*`arguments`.*`params`"),
        ({"function": {"name": "depth", "kwargs": {}, "call": 1}}, r"function`: .*found only `call`, `kwargs`"),
        ({"name": "depth", "args": {"a": 1}, "arguments": {"a": 2}}, r"function`: .*`arguments`, `args`, which differ"),
        ({"name": "depth", "input": ["Ouse"]}, r"function\.input`: .*a list of 1"),
        ({"id": [1], "name": "depth", "args": {}}, r"tool_calls\[0\]\.id`: .*a list of 1"),
    ],
)
def test_a_call_whose_arguments_would_be_lost_is_refused(call: Row, fault: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"12 faults:\n  - row 1, field `messages\[1\]\..*{fault}"):
        load_rows(tmp_path, [_chat([call])] * 12)


def test_an_empty_map_of_parquet_has_no_arguments(tmp_path: Path) -> None:
    arguments = pyarrow.map_(pyarrow.string(), pyarrow.list_(pyarrow.map_(pyarrow.string(), pyarrow.int64())))
    call = pyarrow.struct({"name": pyarrow.string(), "arguments": arguments})
    message = pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string(), "tool_calls": pyarrow.list_(call)})
    given = [[], [("at", [[("mile", 3)], []])]]
    chats = [
        [ASKED, {"role": "assistant", "tool_calls": [{"name": "depth", "arguments": given[n % 2]}]}, SAID]
        for n in range(12)
    ]
    path = tmp_path / "upload"
    path.write_bytes(parquet_table({"messages": pyarrow.array(chats, pyarrow.list_(message))}))
    rows = load(path, "train.parquet", max_row_bytes=2**20).rows
    read = [row["messages"][1]["tool_calls"][0]["function"]["arguments"] for row in rows[:2]]
    assert read == [{}, {"at": [{"mile": 3}, {}]}]


@pytest.mark.parametrize("key", ["tool_call_id", "call_id", "tool_use_id", "id"])
@pytest.mark.parametrize("ids", [("x", "y"), (7, 8)])
def test_a_result_names_its_call_by_each_of_the_usual_keys(
    key: str, ids: tuple[object, object], tmp_path: Path
) -> None:
    calls = [{"id": each, "name": "depth", "args": {"n": n}} for n, each in enumerate(ids)]
    row = _chat(calls, _result("second", **{key: ids[1]}), _result("first", **{key: ids[0]}))
    loaded = load_rows(tmp_path, [row] * 12)
    [_, said, *results, _] = loaded.rows[0]["messages"]
    assert [call["id"] for call in said["tool_calls"]] == [str(each) for each in ids]
    assert [(turn["tool_call_id"], turn["content"]) for turn in results] == [
        (str(ids[0]), "first"),
        (str(ids[1]), "second"),
    ]
    assert len(loaded.notes) == 1


def test_the_id_of_a_message_is_not_that_of_a_call(tmp_path: Path) -> None:
    row = _chat(_calls("depth", ids=True), _result("2", id="message-9"))
    assert load_rows(tmp_path, [row] * 12).rows[0]["messages"][2] == _result("2", id="message-9")


def test_results_without_ids_are_put_in_the_order_of_the_functions_that_they_name(tmp_path: Path) -> None:
    row = _chat(
        _calls("depth", "width", "depth", "now"),
        *(_result(f"{name} {n}", name=name) for n, name in enumerate(["now", "depth", "depth"])),
        _result("of width"),
    )
    loaded = load_rows(tmp_path, [row] * 12)
    assert [turn["content"] for turn in loaded.rows[0]["messages"][2:-1]] == ["depth 1", "of width", "depth 2", "now 0"]
    assert len(loaded.notes) == 1


@pytest.mark.parametrize("names", [("width",), ("depth", "depth"), ("now", "width")])
def test_a_result_of_a_function_that_nobody_called_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    calls = _calls("depth") if len(names) == 1 else _calls("depth", "now")
    with pytest.raises(DatasetError, match=r"12 faults:\n  - row 1, field `messages\[[23]\]\.name`"):
        load_rows(tmp_path, [_chat(calls, *(_result("2", name=name) for name in names))] * 12)


TOOL = {"name": "depth", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("row", "count"),
    [
        (_chat(_calls("depth", ids=True), _result("2", tool_call_id="id-depth", name="width")), "12 results"),
        ({"messages": [ASKED, _result("2"), _result("3"), SAID]}, "24 results"),
        (_chat(_calls("depht", "depth"), _result("2"), _result("3"), tools=[TOOL]), "12 tool calls"),
        (_chat(_calls("depth", "now"), tools=[TOOL, TOOL | {"name": "now"}]), "24 tool calls"),
    ],
)
def test_odd_calls_and_results_are_counted(row: Row, count: str, tmp_path: Path) -> None:
    [note] = load_rows(tmp_path, [row] * 12).notes
    assert note.startswith(count)


def test_results_of_calls_that_stand_in_the_text_are_not_odd(tmp_path: Path) -> None:
    written = {"role": "assistant", "content": '<tool_call>{"name": "depth"}</tool_call>'}
    row = {"messages": [ASKED, written, _result("2"), _result("3"), SAID], "tools": [TOOL]}
    assert load_rows(tmp_path, [row] * 12).notes == ()


SCHEMA = {"type": "object", "properties": {"river": {"type": "string"}}}


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "depth", "input_schema": SCHEMA},
        {"name": "depth", "inputSchema": SCHEMA, "parameters": None},
        {"type": "function", "name": "depth", "parameters": SCHEMA},
        {"type": "function", "function": {"name": "depth", "input_schema": SCHEMA}},
    ],
)
def test_definitions_of_other_programs_become_openais(tool: Row, tmp_path: Path) -> None:
    [row, *_] = load_rows(tmp_path, [{"messages": [ASKED, SAID], "tools": [tool]}] * 12).rows
    assert row["tools"] == [{"type": "function", "function": {"name": "depth", "parameters": SCHEMA}}]


def test_two_schemas_that_differ_are_refused(tmp_path: Path) -> None:
    tool = {"name": "depth", "input_schema": SCHEMA, "parameters": {"type": "object"}}
    with pytest.raises(DatasetError, match=r"row 1, field `tools\[0\]\.function`: .*`parameters`, `input_schema`"):
        load_rows(tmp_path, [{"messages": [ASKED, SAID], "tools": [tool]}] * 12)
