"""`python` runs the user's code where it can reach nothing, keep nothing and last no longer than it may."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from luthier.errors import GraderFault
from luthier.graders import Graded, assess, check, grade, grade_many, python, sample_of, sandbox
from luthier.settings import GraderSettings
from luthier.task import Multi, Number, Python
from tests.live import free_port

ON = GraderSettings(python_graders=True)
HERE = Path(__file__)
SANDBOX = Path(sandbox.__file__).read_text()  # another user may not be able to read the file


def grader(*lines: str) -> Python:
    """A grader whose function has these lines as its body."""
    return Python(source="\n".join(["def grade(sample, item):", *(f"    {line}" for line in lines)]))


def graded(*lines: str) -> Graded:
    return assess(grader(*lines), item={}, sample=sample_of("x"), settings=ON)


def error(*lines: str) -> str:
    """What the code's one fault says; it has graded 0.0."""
    found = graded(*lines)
    assert found.reward == 0.0
    [fault] = found.faults
    assert fault.kind == "python_grader_runtime_error"
    return fault.message


def test_the_code_reads_the_sample_and_the_item() -> None:
    own = grader("return item['weight'] * (sample['output_json']['city'] in sample['output_text'])")
    sample = sample_of('{"city": "Zürich 🎻"}')
    assert grade(own, item={"weight": 0.75}, sample=sample, settings=ON) == 0.75


@pytest.mark.parametrize(("returned", "reward"), [("True", 1.0), ("-3", -3.0), ("2.5", 2.5)])
def test_the_reward_is_the_number_that_it_returns(returned: str, reward: float) -> None:
    assert graded(f"return {returned}") == Graded(reward=reward)


def test_the_packages_that_luthier_is_installed_with_can_be_imported() -> None:
    assert (
        graded("import numpy", "return numpy.ones((8, 8)).astype('float32').__matmul__(numpy.ones(8))[0]").reward == 8
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero (line 2)"),
        ("return float('nan')", "a finite number, not nan"),
        ("return 'good'", "a finite number, not 'good'"),
        ("pass", "a finite number, not None"),
        ("return 10**400", "OverflowError"),
        ("raise SystemExit", "SystemExit"),
        ("import os; os._exit(0)", "its process ended"),
        ('import os; os.write(3, b\'{"grade": "1"}\'); os._exit(0)', "the code wrote to"),
        ("import os; os.write(3, b'[]'); os._exit(0)", "the code wrote to"),
    ],
)
def test_what_the_code_does_wrong_grades_zero_and_is_said(line: str, said: str) -> None:
    assert said in error(line)


# Isolation


def test_the_network_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()  # from out here it can
        said = error("import socket", f"socket.create_connection(('127.0.0.1', {port}), timeout=5)")
    assert "Operation not permitted" in said


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET6", "AF_NETLINK", "AF_VSOCK"])
def test_no_socket_of_any_kind_can_be_made(family: str) -> None:
    """Namespaces alone leave those open that lead from a virtual machine to its host."""
    assert "Operation not permitted" in error(f"import socket; socket.socket(socket.{family}, socket.SOCK_STREAM)")


def test_the_network_is_gone_also_where_sockets_are_left() -> None:
    script = (
        SANDBOX.replace("    _refuse_calls()\n", "", 1).partition('if __name__ == "__main__":')[0]
        + "isolate()\nimport socket\nprint(socket.if_nameindex())\n"
        + f"print(socket.socket().connect_ex(('127.0.0.1', {free_port()})) == errno.ENETUNREACH)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True, env={})
    assert done.stdout == "[(1, 'lo')]\nTrue\n"


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        ("shmget(0, 4096, 0o1600)", True),
        ("msgget(0, 0o1600)", True),
        ("semget(0, 1, 0o1600)", True),
        ("unshare(0x10000000)", True),  # a user namespace
        ("mount(b'none', b'/empty', b'tmpfs', 0, None)", True),
        ("syscall(425, 1, ctypes.create_string_buffer(120))", True),  # io_uring_setup
        ("ptrace(16, 1, 0, 0)", True),  # PTRACE_ATTACH to the process that serves rows
        ("getpid()", False),
    ],
)
def test_calls_that_namespaces_leave_open_are_refused(call: str, refused: bool) -> None:
    lines = ("import ctypes; libc = ctypes.CDLL(None, use_errno=True)", f"made = libc.{call}")
    assert graded(*lines, "return made == -1 and ctypes.get_errno() == 1") == Graded(reward=float(refused))


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", str(HERE)])
def test_files_of_the_machine_cannot_be_read(path: str) -> None:
    assert Path(path).exists()
    assert "No such file" in error(f"open({path!r}).read()")


def test_of_a_home_folder_nothing_is_seen_but_python_itself(tmp_path: Path) -> None:
    homes = [str(Path.home()), str(tmp_path), "/tmp", "/var"]
    seen = (
        "seen = [f'{folder}/{name}' for home in HOMES for folder, _, names in os.walk(home) for name in names "
        "if not folder.startswith((sys.prefix, sys.base_prefix))]"
    )
    (tmp_path / "secret").write_text("x")
    assert graded("import os, sys", f"HOMES = {homes}", seen, "return len(seen)") == Graded(reward=0.0)


@pytest.mark.parametrize("place", ["x", "/empty/x", "/x", "/tmp/x", "/usr/x", sys.prefix + "/x", "/dev/x"])
def test_no_file_can_be_written(place: str) -> None:
    assert re.search(r"Error: \[Errno \d+\]", error(f"open({place!r}, 'w').write('x')"))


@pytest.mark.parametrize("call", ["os.unlink(os.__file__)", "os.truncate(os.__file__, 0)", "os.chmod(os.__file__, 0)"])
def test_no_file_that_is_seen_can_be_changed(call: str) -> None:
    before = Path(os.__file__).read_bytes()
    assert re.search("Read-only file system|Permission denied", error(f"import os; {call}"))
    assert Path(os.__file__).read_bytes() == before


def test_nothing_of_the_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_GRADER_API_KEY", "secret")
    python._sandbox.close()  # the next one starts with that environment
    allowed = {*python._ENVIRONMENT, "LC_CTYPE"}
    assert graded("import os", f"return len(set(os.environ) - {allowed})") == Graded(reward=0.0)


def test_there_are_no_other_processes_and_no_privileges() -> None:
    assert "No such process" in error("import os; os.kill(-1, 9)")
    capabilities = (
        "import ctypes; sets = (ctypes.c_uint32 * 6)()",
        "assert ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(0x20080522, 0), sets) == 0",
        "return sum(sets)",
    )
    assert graded(*capabilities) == Graded(reward=0.0)
    assert "Operation not permitted" in error("import os; os.setuid(1)") or os.geteuid() != 0


def test_the_process_that_serves_rows_cannot_be_ended_by_one() -> None:
    assert graded("import os; os.kill(1, 9); return 1").reward == 1.0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import os; os.fork()", "BlockingIOError"),
        ("import subprocess; subprocess.run(['/bin/ls'])", "BlockingIOError"),
        ("import threading; threading.Thread(target=print).start()", "can't start new thread"),
    ],
)
def test_no_other_process_or_thread_can_be_started(line: str, said: str) -> None:
    assert said in error(line)


# Limits


def test_an_endless_loop_ends_and_the_next_row_is_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "CPU_SECONDS", 1)
    assert "more than 1 seconds of CPU time" in error("while True: pass")
    assert graded("return 1").reward == 1.0


def test_a_loop_that_ignores_signals_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "CPU_SECONDS", 1)
    said = error("import signal", "signal.signal(signal.SIGXCPU, signal.SIG_IGN)", "while True: pass")
    assert "its process ended" in said


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "SECONDS", 0.5)
    assert "more than 0.5 seconds" in error("import time; time.sleep(1000)")


def test_memory_ends() -> None:
    assert "MemoryError" in error("return len(bytearray(2**40))")
    assert "MemoryError" in error("rows = []", "while True: rows.append(bytearray(2**20))")
    assert "File too large" in error("import os; os.ftruncate(os.memfd_create('x'), 2**30)")


def test_output_goes_nowhere_and_errors_are_cut_short(capfd: pytest.CaptureFixture[str]) -> None:
    assert graded("import os; print('x' * 10**8); os.write(2, b'x' * 10**6); return 1").reward == 1.0
    assert len(error("raise ValueError('x' * 10**8)")) < 1_200
    assert "its process ended" in error("import os; os.write(3, b'x' * 10**7)")
    assert capfd.readouterr() == ("", "")


# Many rows


def test_no_row_sees_what_another_has_left_behind() -> None:
    counting = Python(
        source="import builtins\n"
        "def grade(sample, item):\n"
        "    builtins.rows = getattr(builtins, 'rows', 0) + 1\n"
        "    return builtins.rows\n"
    )
    assert grade_many(counting, [({}, sample_of("x"))] * 3, ON) == [1.0, 1.0, 1.0]


def test_one_process_serves_all_rows_and_a_new_one_after_it_was_killed() -> None:
    assert graded("return 1").reward == 1.0
    process = python._sandbox._process
    assert process is not None
    assert graded("return 1").reward == 1.0
    assert python._sandbox._process is process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert graded("return 1").reward == 1.0


def test_threads_get_each_their_own_answer() -> None:
    own = grader("return item['n'] / 4")
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda n: grade(own, item={"n": n}, sample=sample_of(""), settings=ON), range(8))
        assert list(found) == [n / 4 for n in range(8)]


def test_a_multi_may_hold_one() -> None:
    both = Multi(graders={"own": grader("return 0.5"), "number": Number()}, calculate_output="own + number")
    assert grade(both, item={"reference": "2"}, sample=sample_of("it is 2"), settings=ON) == 1.5


# Refusals


def test_nothing_runs_unless_the_setting_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Multi(graders={"own": grader("return 1")}, calculate_output="own")
    for refuse in (
        lambda: check(own),
        lambda: assess(own, item={}, sample=sample_of("x")),
        lambda: grade(own, item={}, sample=sample_of("x")),
    ):
        with pytest.raises(GraderFault, match="LUTHIER_PYTHON_GRADERS=1") as refused:
            refuse()
        assert refused.value.param == "graders.own.type"
    monkeypatch.setenv("LUTHIER_PYTHON_GRADERS", "1")
    assert grade(own, item={}, sample=sample_of("x")) == 1.0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def grade(sample, item", "SyntaxError"),
        ("def score(sample, item): return 1", "there is no function `grade"),
        ("import nowhere\ndef grade(sample, item): return 1", "No module named 'nowhere' (line 1)"),
        ("def grade(sample, item): return 1", None),
    ],
)
def test_code_that_cannot_be_loaded_is_found_before_it_grades(source: str, said: str | None) -> None:
    if said is None:
        check(Python(source=source), settings=ON)
        return
    with pytest.raises(GraderFault) as refused:
        check(Python(source=source), settings=ON)
    assert said in refused.value.message
    assert refused.value.param == "source"


READ_ONLY = """
import errno, sys
def grade(sample, item):
    try:
        open(sys.prefix + "/x", "w")
    except OSError as error:
        return error.errno == errno.EROFS
    return 0.0
"""


def _sandboxed(*prefix: str, python: str = sys.executable, user: int | None = None) -> dict[str, object]:
    """What a sandbox started in that way answers to a row."""
    row = {"source": READ_ONLY, "sample": {}, "item": {}}
    limits = {"cpu_seconds": 5, "seconds": 30, "memory_bytes": 2**30}
    command = [*prefix, python, "-I", "-c", SANDBOX]
    done = subprocess.run(
        command, input=json.dumps(row | limits) + "\n", capture_output=True, text=True, check=True, user=user, env={}
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("name", ["env", "a ü\\b", "link"])
def test_python_may_be_installed_anywhere(name: str, tmp_path: Path) -> None:
    venv.create(tmp_path / name.replace("link", "elsewhere"), symlinks=True)
    if name == "link":
        (tmp_path / "link").symlink_to("elsewhere")
    assert _sandboxed(python=str(tmp_path / name / "bin" / "python")) == {"grade": 1.0}


@pytest.mark.skipif(os.geteuid() != 0, reason="another user already")
def test_a_user_without_privileges_gets_a_user_namespace() -> None:
    system = shutil.which("python3", path="/usr/bin")
    if system is None:
        pytest.skip("the system has no Python that another user could run")
    assert _sandboxed(python=system, user=65534) == {"grade": 1.0}


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser has privileges to lose")
def test_where_isolation_is_not_complete_no_code_is_run() -> None:
    """A superuser without privileges gets its namespaces, but no limit on processes holds for it."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    assert "refused" in _sandboxed(setpriv, "--bounding-set=-sys_admin", "--inh-caps=-all")


def test_a_refusal_of_the_sandbox_raises_instead_of_grading(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def ask(self, question: object) -> str:
            return '{"refused": "PermissionError: unshare: Operation not permitted"}'

    monkeypatch.setattr(python, "_sandbox", Refusing())
    with pytest.raises(GraderFault, match=r"unshare: Operation not permitted"):
        grade(grader("return 1"), item={}, sample=sample_of("x"), settings=ON)
    found = graded("return 1")
    assert [fault.kind for fault in found.faults] == ["python_grader_server_error"]
