"""What the command line says of a wrong name or a port that is taken, before it asks any service."""

from __future__ import annotations

import re
import socket
from io import StringIO

import pytest
from rich.console import Console

from luthier.algorithms import Algorithm
from luthier.api_types import Expected
from luthier.cli import cells as cells_command
from luthier.cli import main, serving, show
from luthier.cli.cells import cells
from luthier.errors import LuthierError, UserError
from luthier.updates import Update
from luthier.values import kinds


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    out = StringIO()
    for module in (show, cells_command):
        monkeypatch.setattr(module, "console", Console(file=out, width=400))
    return out


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["luthier", *arguments])
    with pytest.raises(SystemExit) as found:
        main()
    return found.value.code


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_named_with_the_option(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LuthierError, match=rf"{port}.*--port") as found:
            serving._listen(host, port)
    assert found.value.param == "--port"
    assert not isinstance(found.value, UserError), "exit code 1"


def test_an_address_of_another_machine_is_named_with_the_option() -> None:
    with pytest.raises(LuthierError, match=r"192\.0\.2\.1.*--host") as found:  # an address for documentation
        serving._listen("192.0.2.1", 0)
    assert found.value.param == "--host"


def test_a_free_port_is_bound_and_inherited() -> None:
    with serving._listen("127.0.0.1", 0) as found:
        assert found.getsockname()[1] > 0
        assert found.get_inheritable()


@pytest.mark.parametrize(("option", "choices"), [("algorithm", kinds(Algorithm)), ("update", kinds(Update))])
@pytest.mark.parametrize("name", ["foo", "sft+dpo", ""])
def test_cells_of_an_unknown_name_are_refused_with_the_choices(
    option: str, choices: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as found:
        cells(**{option: name})
    assert found.value.param == f"--{option}"
    assert all(choice in found.value.message for choice in choices)
    assert exit_code(monkeypatch, "cells", f"--{option}", name) == 2


@pytest.mark.parametrize(("update", "shown"), [("lora", True), ("prompt", False)])
def test_cells_of_a_combination_that_has_none_say_so(update: str, shown: bool, printed: StringIO) -> None:
    cells(algorithm="grpo", update=update)
    assert printed.getvalue().strip()
    assert ("grpo on" in printed.getvalue()) is shown


@pytest.mark.parametrize(("number", "workers"), [(1, "1 live worker"), (2, "2 live workers"), (0, "no live worker;")])
def test_designs_repeats_and_workers_are_counted_in_words(number: int, workers: str, printed: StringIO) -> None:
    show.show_expected(
        Expected(
            designs=number,
            finished=number,
            repeats=number,
            device_seconds=100.0,
            seconds=50.0,
            first_share=0.1,
            epochs=12.0,
            workers=number,
            device="cpu",
            calibrated_from=3,
            warning=None,
        )
    )
    words = printed.getvalue().replace("\n", " ")
    ending = "" if number == 1 else "s"
    assert re.findall(r"\b\d+ (?:designs?|repeats?)\b", words) == [
        f"{number} design{ending}",
        f"{number} repeat{ending}",
    ]
    assert re.search(rf"\b{workers}(?!\w)", words)
