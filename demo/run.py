"""Start the service with its defaults, submit a real dataset, follow the job to its recommendation, and stop."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from demo import fetch
from demo.live import luthier, service
from luthier.cli.show import console

CACHE = Path(".cache")
MODEL = "smollm2-135m-instruct"
TRIALS, EPOCHS = 6, 0.5  # a few minutes on two cores


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--home", type=Path, default=CACHE / "demo-home", help="home folder of the demo's service")
    home = parser.parse_args().home.absolute()
    CACHE.mkdir(exist_ok=True)
    console.print("[bold]1. A base model and a dataset[/bold] (about a minute the first time)")
    model, data = fetch.base_model(CACHE), fetch.pronunciations(CACHE)
    console.print(f"   {MODEL}: {model}\n   {fetch.PRONUNCIATIONS} words with their pronunciations: {data}\n")
    console.print("[bold]2. The service[/bold]")
    with service(home) as server:
        console.print(f"   Watch the job on the dashboard: {server}/")
        luthier(server, "models", "add", MODEL, str(model))
        options = ["--objective", "perplexity", "--grader", "text_similarity", "--epochs", str(EPOCHS)]
        options += ["--trials", str(TRIALS), "--finalists", "1", "--confirmations", "0", "--seed", "0", "--follow"]
        console.print(f"\n[bold]3. The job[/bold] `luthier submit {data} {' '.join(options)}`", highlight=False)
        code = luthier(server, "submit", str(data), *options)
        if code == 0:
            export = home / "best-model"
            if export.exists():
                export = home / f"best-model-{int(time.time())}"
            exported = luthier(server, "export", "last", str(export)) == 0  # not where the base is recommended
    if code == 0:
        console.print(f"\nThe recommended model is in {export}" if exported else "\nThere is no model to export.")
        console.print("`make serve` opens this home folder again: dashboard at http://127.0.0.1:8420/, API at /docs")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped. `make serve` resumes the job, `make demo` starts a new one.")
