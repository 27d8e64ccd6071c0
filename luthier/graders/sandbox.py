"""The process of the grader `python`: runs untrusted code, one grade per line, until its standard input ends.

Run as `python -I sandbox.py`, with only the standard library. The process isolates itself in this order:

- new namespaces for network, processes, IPC and mounts, and a user namespace if that is needed for the others;
- a read-only file system that holds only Python and the system's libraries;
- no privileges, and a seccomp filter against system calls that no grader needs;
- one fork per line, so that grades cannot affect each other, and one that exceeds a limit dies alone.

If the system refuses any of this, no code runs, and every reply says so.

A line is {"source", "sample", "item", "cpu_seconds", "seconds", "memory_bytes"}; without a sample the code is only
loaded. The reply is {"grade"}, {"loaded"}, {"error"} for an error of the code, or {"refused"} if it was not run.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import numbers
import os
import re
import resource
import select
import signal
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

NOBODY: Final = 65534
MOST_ANSWER_BYTES: Final = 16_384
MOST_ERROR_CHARACTERS: Final = 1_000
OPEN_FILES: Final = 64

# Mount point of the new root: no library lies below it, and the old /proc is hidden from then on.
ROOT: Final = "/proc"
SYSTEM: Final = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/nix/store")
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

# linux/sched.h, linux/mount.h, linux/prctl.h, linux/capability.h
NEW_NAMESPACES: Final = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, UTS, IPC, PID, network
NEW_USER_NAMESPACE: Final = 0x10000000
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
KEPT_FLAGS: Final = 2 | 4 | 8  # nosuid, nodev, noexec: remounts keep these flags
MNT_DETACH: Final = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CAPABILITY_VERSION_3: Final = 0x20080522

# System calls that namespaces do not cover: sockets (vsock has no namespace) and io_uring, which can open them,
# keyrings, memory that outlives its process, and large parts of the kernel that no grader needs.
# For each architecture: its number in linux/audit.h, then the numbers of the calls in asm/unistd.h.
REFUSED_CALLS: Final = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41,
            "io_uring_setup": 425,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "shmget": 29,
            "msgget": 68,
            "semget": 64,
            "unshare": 272,
            "setns": 308,
            "mount": 165,
            "ptrace": 101,
            "bpf": 321,
            "perf_event_open": 298,
            "userfaultfd": 323,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198,
            "io_uring_setup": 425,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "shmget": 194,
            "msgget": 186,
            "semget": 190,
            "unshare": 97,
            "setns": 268,
            "mount": 40,
            "ptrace": 117,
            "bpf": 280,
            "perf_event_open": 241,
            "userfaultfd": 282,
        },
    ),
}

_libc: Final = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the standard input
    try:
        null = isolate()
        _check_fork(null)
    except (OSError, AttributeError) as error:  # AttributeError: a C library without these calls
        refusal = json.dumps({"refused": f"{type(error).__name__}: {error}"})
        for _ in sys.stdin:
            print(refusal, flush=True)
        return
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), null)), flush=True)


def isolate() -> int:
    """Isolate this process and return in a child of it; the result is an open descriptor of /dev/null.

    Raises OSError if the system does not allow it.
    """
    null = os.open("/dev/null", os.O_RDWR)
    try:
        _call("unshare", NEW_NAMESPACES)
        privileged = True
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        _call("unshare", NEW_NAMESPACES | NEW_USER_NAMESPACE)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")
        privileged = False
    child = os.fork()  # process 1 of the new namespace: when it ends, all others end
    if child:
        os.close(null)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _confine()
    if privileged:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # later children must not write to this process
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _refuse_calls()
    return null


def _confine() -> None:
    """Make a read-only root of the folders that Python needs, and switch to it."""
    with Path("/proc/self/mountinfo").open() as mounts:
        _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        _call("mount", b"tmpfs", ROOT.encode(), b"tmpfs", MS_NOSUID, b"size=1m,mode=755")
        for path in _shown():
            _show(path)
        for line in mounts:
            point = re.sub(
                r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4]
            )  # escaped spaces and the like
            if point.startswith(f"{ROOT}/"):
                _read_only(point)
    os.chdir(ROOT)
    Path("empty").mkdir()
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)
    _read_only("/")
    os.chdir("/empty")


def _shown() -> list[str]:
    """Return the visible paths, without those that lie inside another one."""
    wanted = [path for path in (*SYSTEM, *DEVICES, sys.prefix, sys.base_prefix) if os.path.lexists(path)]
    if "/" in wanted:
        raise OSError("Python is installed in the root folder, which cannot be hidden from graders")
    inside = {path for path in wanted for other in wanted if path.startswith(f"{other}/")}
    return sorted(set(wanted) - inside)


def _show(path: str) -> None:
    place = Path(ROOT + path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if path in SYSTEM and Path(path).is_symlink():  # into /usr, which is shown
        place.symlink_to(Path(path).readlink())
        return
    if Path(path).is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    _call("mount", path.encode(), str(place).encode(), None, MS_BIND | MS_REC, None)


def _read_only(point: str) -> None:
    flags = os.statvfs(point).f_flag & KEPT_FLAGS
    _call("mount", None, point.encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | flags, None)


def _refuse_calls() -> None:
    """Make REFUSED_CALLS and all calls of other architectures fail from here on (seccomp)."""
    machine = os.uname().machine
    if machine not in REFUSED_CALLS:
        raise OSError(f"no seccomp filter is known for {machine}")
    architecture, refused = REFUSED_CALLS[machine]
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h
    left = len(refused) + 2  # instructions from the second to the last comparison, each of which may jump to the end
    program = [(load, 0, 0, 4), (equal, 0, left + 1, architecture), (load, 0, 0, 0), (at_least, left - 1, 0, 1 << 30)]
    for done, number in enumerate(refused.values()):
        program.append((equal, len(refused) - done, 0, number))
    program += [(end, 0, 0, 0x7FFF0000), (end, 0, 0, 0x00050000 | errno.EPERM)]
    instructions = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    _call("prctl", PR_SET_SECCOMP, 2, header, 0, 0)


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C library. Raises OSError, naming the function, if it fails."""
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if getattr(_libc, name)(*longs) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _check_fork(null: int) -> None:
    """Raise OSError if the limit on processes has no effect, as for root without capabilities."""
    forked = answer(
        {
            "source": "import os\ntry:\n    os.fork()\n    grade = None\nexcept OSError:\n    grade = print",
            "sample": None,
            "cpu_seconds": 1,
            "seconds": 10,
            "memory_bytes": 2**30,
        },
        null,
    )
    if "loaded" not in forked:
        raise OSError("the limit on processes has no effect here")


def answer(question: dict[str, Any], null: int) -> dict[str, Any]:
    """Run one question in its own process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _run(question, writing, null)
    os.close(writing)
    written, late = _read(reading, time.monotonic() + question["seconds"])
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    try:
        found = json.loads(written)
    except ValueError:
        return {"error": _death(late, status, question)}
    return found if isinstance(found, dict) else {"error": "the code wrote to the pipe of its grade"}


def _read(reading: int, deadline: float) -> tuple[bytes, bool]:
    """Return what the child writes until it ends, and whether the deadline passed first."""
    written = b""
    while len(written) < MOST_ANSWER_BYTES:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return b"", True
        piece = os.read(reading, MOST_ANSWER_BYTES)
        if not piece:
            break
        written += piece
    return written, False


def _death(late: bool, status: int, question: dict[str, Any]) -> str:
    if late:
        return f"it took more than {question['seconds']:g} seconds"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return f"it took more than {question['cpu_seconds']} seconds of CPU time"
    return "its process ended before it returned a grade"


def _run(question: dict[str, Any], writing: int, null: int) -> None:
    """Run the code, write the result and exit. Never returns."""
    try:
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        out = os.dup2(writing, 3)
        os.closerange(4, OPEN_FILES * 4)
        _limit(question["cpu_seconds"], question["memory_bytes"])
        found = _grade(question)
    except BaseException as error:  # untrusted code may raise anything, SystemExit included
        found = {"error": _described(error)}
    os.write(out, json.dumps(found).encode())
    os._exit(0)


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    for nothing in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_MSGQUEUE):
        resource.setrlimit(nothing, (0, 0))


def _grade(question: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "grader"}
    exec(compile(question["source"], "source", "exec"), names)
    if not callable(names.get("grade")):
        raise NameError("there is no function `grade(sample, item)`")
    if question["sample"] is None:
        return {"loaded": True}
    value = names["grade"](question["sample"], question["item"])
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise TypeError(f"grade must return a finite number, not {repr(value)[:80]}")
    return {"grade": float(value)}


def _described(error: BaseException) -> str:
    """Return the error as one line, with the number of the source line that raised it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "source"]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}"[:MOST_ERROR_CHARACTERS] + where


if __name__ == "__main__":
    main()
