"""The service ends although a thread still checks an upload."""

import subprocess
import sys
import time

_BUSY = """
import threading, time
from luthier.cli import serving

threading.Thread(target=time.sleep, args=({seconds},)).start()
serving._exit_without_threads()
print("waited for the thread")
"""


def test_the_process_ends_without_a_thread_that_is_busy() -> None:
    for seconds, waited in ((60, False), (0.1, True)):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", _BUSY.format(seconds=seconds)], capture_output=True, text=True, timeout=50
        )
        assert (done.returncode, bool(done.stdout)) == (0, waited)
        assert time.monotonic() - started < 40
