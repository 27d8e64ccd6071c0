"""What the budget of a job is expected to buy, said when it is created."""

from __future__ import annotations

from datetime import datetime

import psutil

from luthier.api_types import DesignEstimate, Expected
from luthier.design import Design
from luthier.store import Connection, workers
from luthier.store.rows import JobRecord
from luthier.task import Search
from luthier.worker_protocol import Device
from search.cost.length import expected_epochs, rung_shares
from search.format import count
from search.policy.forecast import Forecast, forecast
from search.policy.priors import baselines
from search.policy.scheduler import BASELINES, Plan
from search.space.space import Space
from service.context import Context
from service.jobs import budget, costs


def expected(ctx: Context, c: Connection, job: JobRecord, designs: Space, now: datetime) -> Expected:
    """Return the forecast for a job whose rows are in the store, on the live workers, or else on this machine's CPU."""
    live_workers = workers.live(c, now, ctx.settings.lease_seconds)
    if live_workers:
        room = costs.room(live_workers[0].device, costs.sharing(live_workers[0], live_workers))
    else:
        memory = psutil.virtual_memory().total
        room = costs.room(Device(kind="cpu", name="this machine's CPU", memory_bytes=memory))
    ledger = costs.Ledger(ctx, c)
    price = ledger.calibration(room.device)
    untuned, default = (
        costs.priced(ledger.entry(base).facts, design, ledger.workload(job, base), price, room).seconds
        for design in baselines(designs)
        for base in [design.architecture.base]
    )
    return _expected(
        job.search,
        budget.remaining(job, (), len(live_workers), now),
        untuned=untuned,
        full=default,
        default=baselines(designs)[1],
        rows=ctx.count_rows(job.train),
        device=room.device.name,
        worker_count=len(live_workers),
        calibrated_from=price.trials,
        further_splits=len(job.resplits),
    )


def previewed(
    search: Search, default: DesignEstimate, rows: int, worker_count: int, now: datetime, *, further_splits: int
) -> Expected:
    """Return the forecast for a request with so many training rows, from the estimate of the plain LoRA default.

    `further_splits`: of the rows, on which repeats are trained.
    """
    limits = [] if search.device_seconds is None else [search.device_seconds]
    if search.deadline is not None and search.deadline.tzinfo is not None:
        limits.append(max(0.0, (search.deadline - now).total_seconds()) * max(1, worker_count))
    return _expected(
        search,
        min(limits) if limits else None,
        untuned=default.parts.seconds["judging"],
        full=default.seconds,
        default=default.design,
        rows=rows,
        device=default.device,
        worker_count=worker_count,
        calibrated_from=default.calibrated_from,
        further_splits=further_splits,
    )


def _expected(
    search: Search,
    limit: float | None,
    *,
    untuned: float,
    full: float,
    default: Design,
    rows: int,
    device: str,
    worker_count: int,
    calibrated_from: int,
    further_splits: int,
) -> Expected:
    plan = Plan(trials=search.trials, finalists=search.finalists, confirmations=search.confirmations, seed=0)
    shares = rung_shares(default, rows) if search.trials - len(BASELINES) > search.finalists else ()
    found = forecast(plan, untuned=untuned, full=full, budget=limit, rungs=shares, default_pauses=default.self_ending)
    return Expected(
        designs=found.designs,
        finished=found.finished,
        repeats=found.repeats,
        repeat_seconds=found.repeats * full,
        splits=1 + min(further_splits, found.rounds),
        epochs=sum(expected_epochs(stage.optimiser, rows) for stage in default.stages),
        first_share=shares[0] if shares else 1.0,
        device_seconds=found.device_seconds,
        seconds=found.device_seconds / max(1, worker_count),
        device=device,
        workers=worker_count,
        calibrated_from=calibrated_from,
        warning=None if limit is None else _warning(search, found, untuned, full, limit, further_splits),
    )


def _warning(
    search: Search, found: Forecast, untuned: float, full: float, limit: float, further_splits: int
) -> str | None:
    """`untuned`, `full`: device-seconds to score the base, and to train the default to its end."""
    both = untuned + full
    wanted = search.trials - len(BASELINES)
    if limit < both:
        return (
            f"{limit:.0f} device-seconds are not expected to suffice for the two baselines, which take about "
            f"{both:.0f}. Give at least {both + (2 * full if wanted else 0):.0f}."
        )
    if found.designs >= wanted:
        if further_splits and not found.rounds:
            return (
                f"{limit:.0f} device-seconds are not expected to suffice for training the finalists on another split "
                "of the rows: they would be compared on the few validation rows of the first one."
            )
        return None
    if found.designs == 0:
        return (
            f"{limit:.0f} device-seconds are expected to buy nothing but the two baselines, which take about "
            f"{both:.0f}: no design would be tried. Give at least {both + 2 * full:.0f}."
        )
    return f"{limit:.0f} device-seconds are expected to suffice for {found.designs} of {count(wanted, 'design')}."
