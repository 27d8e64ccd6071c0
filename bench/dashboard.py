"""Measure how fast the page of a large job loads in a real browser.

    python -m bench.dashboard [--trials 500] [--points 200] [--repeats 3]

The store is filled with a job of `--trials` trials with `--points` points each. The service runs in this process, and
Chromium (driven by Playwright) opens the page twice: first with an empty cache, then as a returning visitor. Times are
measured by the browser's clock from the start of the navigation: to the frame with the figures and the table, and to
the frame with the curves and the search chart.

The peer, in the same run, is plotly (in the extra `bench`) alone: an empty page that has all data already, with a trace
for each trial and all its points.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import shutil
import statistics
import tempfile
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Final

import psutil
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import Connection, insert

from luthier.algorithms import Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.store import jobs, tables
from luthier.store.rows import TrialRecord
from luthier.trial import RUNGS, JobState, Metrics, Point, TrialState
from luthier.updates import Lora, RsLora
from service.context import utc_now
from tests.integration.service_harness import Service, serving, sums

RANKS: Final = (4, 8, 16, 32, 64)
SHARES: Final = (*RUNGS, 1.0)
STARTED: Final = """() => {
  window.times = {};
  const there = {
    table: () => document.querySelector(".leaderboard tbody tr"),
    charts: () => document.querySelectorAll("#chart-curves[data-drawn], #chart-search[data-drawn]").length === 2,
  };
  const look = () => {
    const found = Object.keys(there).filter((name) => !times[name] && there[name]());
    setTimeout(() => {  // once the frame is painted
      for (const name of found) times[name] ??= performance.now();
      if (times.charts) document.documentElement.dataset.timed = "";
    });
    if (!times.charts) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""
PEER: Final = """([script, trials]) => {
  const begun = performance.now();
  document.head.append(Object.assign(document.createElement("script"), { textContent: script }));
  const box = document.createElement("div");
  box.style = "position: fixed; inset: 0; background: white";
  document.body.append(box);
  const read = performance.now();
  const traces = trials.map(({ step, value }) => ({ x: step, y: value, mode: "lines" }));
  return Plotly.newPlot(box, traces, {}, {}).then(() => [read - begun, performance.now() - read]);
}"""


def fill(service: Service, count: int, points: int) -> str:
    """Store an ended job in which one trial in nine was trained to the end."""
    service.add_model()
    job_id = service.submit(sums(), search={"trials": 2, "confirmations": 0})
    now = utc_now()
    with service.context.database.begin() as c:
        jobs.move(c, job_id, JobState.CANCELLED, now)
        c.execute(tables.trials.delete().where(tables.trials.c.job_id == job_id))
        for number in range(count):
            _trial(c, job_id, number, points, now + timedelta(seconds=number))
    return job_id


def _trial(c: Connection, job_id: str, number: int, points: int, now: datetime) -> None:
    dice = random.Random(number)
    design = Design(architecture=Architecture(base="tiny-chat"), stages=(_stage(dice),) if number else ())
    reached = 2 if number < 2 or number % 9 == 0 else number % 2
    bits = [1.5 + 0.2 * dice.random() + 0.9 * math.exp(-4 * share) for share in SHARES[: reached + 1]]
    measured = tuple(_metrics(value) for value in bits)
    complete = reached == 2
    trial = TrialRecord(
        id=f"trial-{job_id[-6:]}-{number}",
        job_id=job_id,
        number=number,
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        design=design,
        digest=design.digest(),
        seed=number,
        origin="proposed" if number > 1 else "baseline",
        rung=min(reached, 1) if number else None,
        goal=None if complete else reached,
        measured=measured[:2] if number else (),
        created_at=now,
        started_at=now,
        finished_at=now + timedelta(seconds=30),
        device_seconds=30.0 * SHARES[reached],
        metrics=measured[-1] if complete else None,
    )
    c.execute(tables.trials.insert().values(dict(trial)))
    curve = [
        Point(
            stage=0, step=step, name="train_loss", value=1.4 + 1.8 * math.exp(-step / 40) + dice.gauss(0, 0.04), at=now
        )
        for step in range(1, points + 1)
    ]
    if number:
        c.execute(insert(tables.points), [{"trial_id": trial.id, **dict(point)} for point in curve])


def _stage(dice: random.Random) -> Stage:
    kind = dice.choice((Lora, RsLora))
    rate = 10 ** dice.uniform(-5, -2.5)
    return Stage(
        algorithm=Sft(),
        update=kind(rank=dice.choice(RANKS)),
        optimiser=Optimiser(learning_rate=rate, batch_size=dice.choice((4, 8, 16)), epochs=dice.choice((1.0, 2.0))),
    )


def _metrics(bits: float) -> Metrics:
    return Metrics(perplexity=2.0 ** (3 * bits), bits_per_byte=bits, tokens=4000, rows=64)


def measure(browser: Browser, address: str, repeats: int) -> dict[str, list[float]]:
    """Return milliseconds by name of the measurement: of both visits, and of the peer."""
    found: dict[str, list[float]] = {}
    script = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text()

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for _ in range(repeats):
        context = browser.new_context(viewport={"width": 1360, "height": 900})
        page = context.new_page()
        page.add_init_script(f"document.addEventListener('DOMContentLoaded', {STARTED})")
        for visit in ("first visit", "second visit"):
            before = _cpu_seconds()
            times = _visit(page, address)
            spent = sum(seconds - before.get(pid, 0.0) for pid, seconds in _cpu_seconds().items())
            note(f"{visit}, CPU time of browser and service", 1000 * spent)
            note(f"{visit}, table", times["table"])
            note(f"{visit}, curves and search chart", times["charts"])
        whole = page.evaluate(f"fetch('{_api(address)}/curves?points=100000').then((answer) => answer.json())")
        read, drew = context.new_page().evaluate(PEER, [script, whole["trials"]])
        note("peer: plotly, loading its script", read)
        note("peer: plotly, drawing a trace for each trial", drew)
        context.close()
    return found


def _visit(page: Page, address: str) -> dict[str, float]:
    page.goto(address)
    page.wait_for_selector("html[data-timed]")
    times: dict[str, float] = page.evaluate("times")
    return times


def _cpu_seconds() -> dict[int, float]:
    """CPU seconds by process id, of this process (which runs the service) and of its children (the browser)."""
    found: dict[int, float] = {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process.pid] = sum(process.cpu_times()[:2])
    return found


def _api(address: str) -> str:
    return address.replace("/jobs/", "/v1/fine_tuning/jobs/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    assert chromium is not None, "chromium is not on the PATH; run `make chromium`"
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "home") as service,
        sync_playwright() as driver,
    ):
        job_id = fill(service, given.trials, given.points)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found = measure(browser, f"{service.url}/jobs/{job_id}", given.repeats)
        browser.close()
    print(f"{given.trials} trials × {given.points} points, median of {given.repeats}, milliseconds")
    for name, values in found.items():
        print(f"{statistics.median(values):8.0f}  {name}  (best {min(values):.0f})")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
