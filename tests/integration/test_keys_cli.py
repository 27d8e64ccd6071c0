"""`luthier keys` and what follows from it, with a real service that listens on all addresses and a real worker."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from luthier import child_process
from luthier.client import Client
from luthier.errors import Unreachable
from luthier.keys import well_formed
from tests import commands
from tests.live import FAST, eventually, free_port

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"

pytestmark = pytest.mark.xdist_group("keys-cli")


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    output: str
    errors: str


class Shell:
    """A terminal in which one home is used. Its commands run in this process, which has imported all they need."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.server = f"http://127.0.0.1:{self.port}"
        self.environment = {"COLUMNS": "200", "LUTHIER_HOME": str(home), "LUTHIER_SERVER": self.server}
        self.environment |= {"LUTHIER_SECRET": "known to the service and to nobody else"}

    def run(self, *arguments: str, key: str = "") -> Done:
        done = commands.run(*arguments, **self.environment, LUTHIER_API_KEY=key)
        return Done(done.returncode, done.stdout, done.stderr)

    def made(self, *arguments: str) -> str:
        """A new key."""
        done = self.run("keys", "create", *arguments)
        assert done.code == 0, done.errors
        return done.output.strip()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("keys") / "home")


@pytest.fixture(scope="module")
def refused(shell: Shell) -> Done:
    """An attempt to listen on all addresses before there is a key."""
    return shell.run("serve", "--host", "0.0.0.0", "--port", str(shell.port), "--workers", "0")


@pytest.fixture(scope="module")
def key(shell: Shell, refused: Done) -> str:
    return shell.made("me", "--scope", "admin", "--days", "30")


@pytest.fixture(scope="module")
def process(shell: Shell, key: str) -> Iterator[psutil.Process]:
    """The service on all addresses, with one worker."""
    command = [sys.executable, "-P", "-m", "luthier", "serve", "--host", "0.0.0.0", "--port", str(shell.port)]
    # Workers are interpreters of their own, as on machines with GPUs, so that their whole environment can be seen.
    environment = os.environ | FAST | shell.environment | {child_process.SOCKET: os.devnull}
    service = subprocess.Popen([*command, "--workers", "1"], env=environment, stdout=subprocess.DEVNULL)
    with Client(shell.server, api_key=key) as client:

        def answers() -> bool:
            assert service.poll() is None
            try:
                return client.models() == []
            except Unreachable:
                return False

        eventually(answers, 60)
        yield psutil.Process(service.pid)
    service.terminate()
    service.wait(60)


def test_without_a_key_serve_does_not_listen_beyond_loopback_and_says_how_to_make_one(refused: Done) -> None:
    assert refused.code == 2
    assert "luthier keys create NAME --scope admin" in refused.errors


def test_a_key_is_printed_alone_on_standard_output(key: str) -> None:
    assert well_formed(key)


def test_the_command_line_reads_its_key_from_the_environment(shell: Shell, process: psutil.Process, key: str) -> None:
    assert shell.run("jobs", "--json", key=key).output.strip() == "[]"
    without = shell.run("jobs")
    assert without.code == 2
    assert "LUTHIER_API_KEY" in without.errors
    mistyped = shell.run("jobs", key=key[:-1])
    assert mistyped.code == 2
    assert "LUTHIER_API_KEY" in mistyped.errors


def test_local_workers_get_a_key_that_is_on_no_command_line(shell: Shell, process: psutil.Process, key: str) -> None:
    with Client(shell.server, api_key=key) as client:
        [worker] = eventually(client.workers)
    assert worker.live
    [child] = process.children()
    assert "luthier_" not in " ".join(child.cmdline())
    assert well_formed(child.environ()["LUTHIER_API_KEY"])
    assert "LUTHIER_SECRET" not in child.environ()


def test_a_key_that_is_revoked_opens_nothing_from_then_on(shell: Shell, process: psutil.Process) -> None:
    short_lived = shell.made("a script", "--scope", "read")
    assert shell.run("models", "list", key=short_lived).code == 0
    [listed] = [one for one in json.loads(shell.run("keys", "list", "--json").output) if one["name"] == "a script"]
    assert short_lived.startswith(listed["hint"].rstrip("…"))
    assert listed["hint"] in shell.run("keys", "revoke", listed["id"]).output
    again = shell.run("models", "list", key=short_lived)
    assert again.code == 2
    assert "a script" in again.errors
    assert "revoked" in again.errors
    table = shell.run("keys", "list").output
    assert "revoked" in table
    assert "live until" in table
    assert short_lived not in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "me", "--scope", "root"], "'root'"),
        (["create", "me", "--days", "0"], "days must"),
        (["create", "  "], "name must"),
        (["revoke", "key-no"], "'key-no'"),
    ],
)
def test_wrong_use_is_explained(shell: Shell, arguments: list[str], message: str) -> None:
    done = shell.run("keys", *arguments)
    assert done.code == 2, done.output
    assert message in done.errors
    assert "Traceback" not in done.errors


def block(name: str) -> list[str]:
    """The lines of a block of docs/keys.md."""
    [found] = re.findall(rf"<!-- test: {name} -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found).splitlines()


def test_the_page_on_keys_makes_keys(shell: Shell) -> None:
    for line in block("keys"):
        recipe, *arguments = shlex.split(line)
        assert recipe == "luthier"
        assert shell.run(*arguments).code == 0, line
    made = json.loads(shell.run("keys", "list", "--json").output)
    assert {("nightly", "submit"), ("gpu-box", "worker")} <= {(key["name"], key["scope"]) for key in made}


def test_the_page_on_keys_uses_one(shell: Shell, process: psutil.Process, key: str) -> None:
    export, command, curl = block("use")
    assert export == "export LUTHIER_API_KEY=luthier_…"
    assert shell.run(*shlex.split(command)[1:], key=key).code == 0
    request = curl.replace("http://127.0.0.1:8420", shell.server)
    found = subprocess.run(["bash", "-c", request], env=os.environ | {"LUTHIER_API_KEY": key}, capture_output=True)
    assert json.loads(found.stdout)["object"] == "list"
