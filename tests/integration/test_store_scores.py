"""The scores of test rows come and go with the report that ends a lease."""

from luthier.store import leases, measurements
from luthier.store.database import Database
from luthier.trial import RowScores
from luthier.worker_protocol import Finished
from tests.integration.store_samples import METRICS, add_job, add_trial, after, claim_of, lease

SCORES = RowScores(
    nll=(1.25, 0.1), tokens=(3, 4), bytes=(10.5, 8.0), reward=(0.5,), labels=(True, False), general_bits_per_byte=1 / 3
)


def test_a_finish_keeps_the_scores_of_the_test_rows(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add_trial(c, number=0)
        add_trial(c, number=1)
        first, second = lease(c), lease(c)
        report = {"outcome": "complete", "device_seconds": 1.0, "metrics": METRICS}
        done = Finished(**dict(claim_of(first)), **report, test_metrics=METRICS, test_scores=SCORES)
        leases.finish(c, first.id, done, after(1))
        leases.finish(c, first.id, done, after(2))  # sent again
        leases.finish(c, second.id, Finished(**dict(claim_of(second)), **report), after(1))
        assert measurements.scores_of_job(c, "ftjob-a") == {first.id: SCORES}
        assert measurements.scores_of_job(c, "ftjob-b") == {}


def test_later_scores_replace_the_earlier_ones(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        trial = add_trial(c)
        measurements.put_scores(c, trial.id, SCORES)
        measurements.put_scores(c, trial.id, SCORES.model_copy(update={"reward": None}))
        assert measurements.scores_of_job(c, "ftjob-a")[trial.id].reward is None
