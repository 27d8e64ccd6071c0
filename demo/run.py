"""Start the service on its defaults, submit a real dataset, follow it to the winning design, and stop."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from demo import fetch
from luthier.cli.show import console
from luthier.client import Client
from luthier.errors import Unreachable

CACHE = Path(".cache")
MODEL = "smollm2-135m-instruct"
TRIALS = 9
START_SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--home", type=Path, default=CACHE / "demo-home", help="home folder of the demo's service")
    home = parser.parse_args().home.absolute()
    CACHE.mkdir(exist_ok=True)
    console.print("[bold]1. A base model and a dataset[/bold] (the first time: a minute)")
    model, data = fetch.base_model(CACHE), fetch.instructions(CACHE)
    console.print(f"   {MODEL}: {model}\n   {fetch.DEMO_ROWS} short instructions with answers: {data}\n")
    console.print("[bold]2. The service[/bold]")
    with _service(home) as server:
        _luthier(server, "models", "add", MODEL, str(model))
        options = ["--objective", "perplexity", "--grader", "text_similarity", "--trials", str(TRIALS)]
        options += ["--epochs", "1", "--batch-size", "8", "--seed", "0", "--follow"]
        console.print(f"\n[bold]3. The job[/bold] `luthier submit {data} {' '.join(options)}`", highlight=False)
        code = _luthier(server, "submit", str(data), *options)
        if code == 0:
            export = home / "best-model"
            if export.exists():
                export = home / f"best-model-{int(time.time())}"
            _luthier(server, "export", "last", str(export))
    if code == 0:
        console.print(f"\nThe winning model is in {export}")
        console.print("`make serve` opens this home again: the API and its page at http://127.0.0.1:8420/docs")
    return code


def _luthier(server: str, *arguments: str) -> int:
    """Run the command line as a user would."""
    command = [sys.executable, "-P", "-m", "luthier", *arguments]
    return subprocess.run(command, env=os.environ | {"LUTHIER_SERVER": server}, check=False).returncode


@contextlib.contextmanager
def _service(home: Path) -> Iterator[str]:
    """`luthier serve` on a free port until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "luthier", "serve", "--home", str(home), "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True)  # Ctrl-C is for us to pass on, once
    try:
        server = f"http://127.0.0.1:{port}"
        _wait(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(server: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Client(server) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.models()
                return
            except Unreachable:
                time.sleep(0.2)
    sys.exit("the service did not start; see the lines above")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; `make serve` goes on with the job where it is, `make demo` starts a new one")
