"""A module for a process of its own, as it is started by luthier/child_process.py."""

import os
import sys
import time
from pathlib import Path

from luthier import child_process

MIB = 2**20


def main() -> int:
    match sys.argv[1:]:
        case ["environment"]:
            print(*os.environ, os.getsid(0))
        case ["asleep"]:
            time.sleep(600)
        case ["fail"]:
            return 1 // 0
        case ["memory"]:
            child_process.limit_memory(100 * MIB)
            bytearray(64 * MIB)
            try:
                bytearray(128 * MIB)
            except MemoryError:
                print("MemoryError after 64 MiB")
        case arguments:
            for line in sys.stdin:
                print(arguments, line.strip(), os.getpid(), _forked(), flush=True)
            return int(arguments[-1])
    return 0


def _forked() -> bool:
    return b"fork" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes()


if __name__ == "__main__":
    sys.exit(main())
