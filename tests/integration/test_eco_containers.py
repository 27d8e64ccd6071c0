"""docker-compose.yml and the Dockerfile, as far as they can be tried without a Docker engine: by their schema, by what
they name, and by running the same commands without containers.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_group

from luthier.cli import app
from luthier.settings import Settings
from tests.integration.service_harness import wait_until

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = ("upgrade", "service", "worker")
ELSEWHERE = {"LUTHIER_API_KEY", "LUTHIER_SECRET"}  # of the command line and the keys


def test_the_compose_file_is_one_by_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


def test_each_variable_is_a_setting_and_each_volume_exists() -> None:
    known = {f"LUTHIER_{name.upper()}" for name in Settings.model_fields} | ELSEWHERE
    for name in OURS:
        service = COMPOSE["services"][name]
        assert set(service["environment"]) <= known, name
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert set(service["depends_on"]) <= set(COMPOSE["services"])


def test_workers_find_base_models_where_the_service_put_them() -> None:
    mounts = [
        {volume.split(":")[0]: volume.split(":")[1] for volume in COMPOSE["services"][name]["volumes"]}
        for name in ("service", "worker")
    ]
    home = COMPOSE["services"]["service"]["environment"]["LUTHIER_HOME"]
    assert [mount["models"] for mount in mounts] == [f"{home}/models"] * 2


def test_the_image_is_made_of_files_that_exist_and_are_sent_to_the_engine() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {source for line in re.findall(r"^COPY (.+)$", dockerfile, re.M) for source in line.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sent == copied
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert packages <= copied
    for name in OURS:
        mounted = [volume.split(":")[1] for volume in COMPOSE["services"][name].get("volumes", [])]
        for path in mounted:
            assert re.search(rf"mkdir .*{path}\b", dockerfile), f"{path} would belong to root"


def test_the_commands_have_the_options_that_they_are_given() -> None:
    luthier = get_group(app)
    for name in OURS:
        recipe, *arguments = COMPOSE["services"][name]["command"]
        with luthier.make_context(recipe, arguments) as context:
            chosen, command, rest = luthier.resolve_command(context, arguments)
            assert command is not None
            command.make_context(chosen, rest)


@pytest.mark.parametrize("kind", [pytest.param("postgresql", marks=pytest.mark.xdist_group("postgres"))], indirect=True)
def test_the_commands_run_without_containers_too(url: str, tmp_path: Path) -> None:
    """Against a PostgreSQL, on loopback, where no key is needed."""
    service = COMPOSE["services"]["service"]
    env = os.environ | service["environment"] | {"LUTHIER_DATABASE_URL": url, "LUTHIER_HOME": str(tmp_path)}
    env["LUTHIER_SECRET"] = "s" * 32

    def command(name: str, *more: str) -> list[str]:
        recipe, *arguments = COMPOSE["services"][name]["command"]
        assert recipe == "luthier"
        local = ["127.0.0.1" if argument == "0.0.0.0" else argument for argument in arguments]
        return [sys.executable, "-P", "-m", recipe, *local, *more]

    subprocess.run(command("upgrade"), env=env, check=True, capture_output=True)
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(command("service", "--port", "0"), env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = re.compile(r"at\s+http://127\.0\.0\.1:(\d+)")
        wait_until(lambda: address.search((tmp_path / "log").read_text()) is not None or running.poll() is not None)
        found = address.search((tmp_path / "log").read_text())
        assert found is not None, (tmp_path / "log").read_text()
        _, _, *check = service["healthcheck"]["test"]

        def healthy() -> bool:
            probe = [sys.executable, *(part.replace("8420", found[1]) for part in check)]
            return subprocess.run(probe, check=False, capture_output=True).returncode == 0

        wait_until(healthy)
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) in (0, 130)
