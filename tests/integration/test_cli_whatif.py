"""`luthier what-if` against a real service."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from luthier.algorithms import Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.updates import Full
from tests import commands
from tests.integration.service_harness import Service, sums

pytest_plugins = ("tests.integration.service_fixtures",)


@pytest.fixture(scope="module")
def service(shared: Service) -> Service:
    return shared


@pytest.fixture(scope="module")
def file(service: Service) -> str:
    return service.upload(sums())


def what_if(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run("what-if", *arguments, LUTHIER_SERVER=service.url, COLUMNS="160")


def test_the_change_and_what_it_changes_stand_side_by_side(service: Service, file: str) -> None:
    shown = what_if(service, "--data", file, "--model", "tiny-chat", "--set", "rank=64", "--set", "epochs=3")
    assert shown.returncode == 0, shown.stderr
    assert "sft lora r16" in shown.stdout
    assert "sft lora r64" in shown.stdout
    for line in ("memory", "time", "tokens per second", "FLOPs", "trainable", "feasible"):
        assert line in shown.stdout
    assert "983,040" in shown.stdout
    assert "not calibrated" in shown.stdout


def test_json_is_the_answer_of_the_service(service: Service, file: str, tmp_path: Path) -> None:
    stage = Stage(algorithm=Sft(), update=Full(), optimiser=Optimiser(learning_rate=1e-5))
    design = tmp_path / "design.json"
    design.write_text(Design(architecture=Architecture(base="tiny-chat"), stages=(stage,)).canonical())
    shown = what_if(service, "--data", file, "--design", str(design), "--device", "cuda:0.001", "--json")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["trainable_parameters"] == 1_803_904
    assert found["feasible"] is False
    assert "1 MiB is available" in found["why"]


def test_a_design_that_does_not_fit_is_said_not_to(service: Service, file: str) -> None:
    shown = what_if(service, "--data", file, "--device", "cpu:0.25")
    assert shown.returncode == 0
    assert "not feasible:" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "rank=0"], "1 to 1024"),
        (["--set", "rank"], "NAME=VALUE, e.g. rank=64, not 'rank'"),
        (["--set", "speed=9"], "'speed'"),
        (["--device", "cuda:much"], "KIND:GIB, e.g. cuda:80, not 'cuda:much'"),
        (["--model", "huge"], "'huge'"),
    ],
)
def test_wrong_use_exits_with_2_and_names_what_is_possible(
    service: Service, file: str, arguments: list[str], message: str
) -> None:
    shown = what_if(service, "--data", file, *arguments)
    assert shown.returncode == 2
    assert message in shown.stderr.replace("\n", " ")


def test_help_says_what_can_be_set(service: Service) -> None:
    shown = what_if(service, "--help")
    assert shown.returncode == 0
    assert "layers=20" in shown.stdout
