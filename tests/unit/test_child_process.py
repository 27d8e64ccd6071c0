"""Modules in processes of their own: forks of the fork server where one runs, new interpreters elsewhere."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from luthier import child_process
from luthier.child_process import SOCKET, ChildProcess
from tests.live import eventually

MODULE = "tests.talking_child"
NOTHING = subprocess.DEVNULL


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # where a child finds these tests


@pytest.fixture(params=["forked", "started"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "started":
        monkeypatch.setenv(SOCKET, str(tmp_path / "nobody listens"))
    return str(request.param)


def close(child: ChildProcess) -> None:
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


def test_a_child_reads_and_writes_and_says_its_exit_code(way: str) -> None:
    child = child_process.piped(MODULE, "a b", "7")
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("grüße\n")
    child.stdin.flush()
    assert child.stdout.readline() == f"['a b', '7'] grüße {child.pid} {way == 'forked'}\n"
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.1)
    close(child)
    assert (child.wait(60), child.wait(), child.poll()) == (7, 7, 7)
    child.terminate()  # of no effect, and no error


def test_a_child_has_a_session_and_an_environment_of_its_own(way: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "LUTHIER_TEST": "seen"}
    with (tmp_path / "out").open("wb") as out:
        child = child_process.start(
            MODULE,
            "environment",
            stdin=NOTHING,
            stdout=out,
            stderr=subprocess.STDOUT,
            environment=environment,
        )
        assert child.wait(60) == 0
    *variables, session = (tmp_path / "out").read_text().split()
    assert {*variables} - {"LC_CTYPE"} == {*environment}
    assert int(session) == child.pid != os.getsid(0)


@pytest.mark.parametrize(("end", "code"), [("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL)])
def test_a_child_is_ended_by_a_signal(way: str, end: str, code: int) -> None:
    child = child_process.piped(MODULE)
    command = f"{sys.executable} -P -m {MODULE}"
    assert eventually(lambda: " ".join(psutil.Process(child.pid).cmdline()).strip() == command)
    getattr(child, end)()
    assert child.wait(60) == code
    close(child)


def test_an_error_of_a_child_is_on_its_standard_error(way: str, tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        child = child_process.start(MODULE, "fail", stdin=NOTHING, stderr=errors)
        assert child.wait(60) == 1
    assert (tmp_path / "errors").read_text().splitlines()[-1].startswith("ZeroDivisionError")


def test_a_fork_server_ends_with_the_process_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SOCKET, raising=False)
    with child_process.fork_server():
        address = os.environ[SOCKET]
        child = child_process.piped(MODULE)
        assert psutil.Process(child.pid).parent() in psutil.Process().children()
        with child_process.fork_server():
            assert os.environ[SOCKET] == address, "one is enough"
        assert child.poll() is None
    assert SOCKET not in os.environ
    assert not Path(address).exists()
    assert child.wait(10) == -signal.SIGKILL
    close(child)


def test_a_memory_limit_leaves_room_beyond_what_the_libraries_have_mapped() -> None:
    child = child_process.piped(MODULE, "memory")
    assert child.stdout is not None
    assert child.stdout.read() == "MemoryError after 64 MiB\n"
    assert child.wait(60) == 0
    close(child)
