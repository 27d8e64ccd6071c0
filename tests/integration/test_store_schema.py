"""The store's schema and its transactions, the same on SQLite and PostgreSQL."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from importlib.resources import files as package_files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from luthier.errors import Conflict, NotFound, Unreachable, UserError
from luthier.store import artifacts, events, files, jobs, tables, trials
from luthier.store.database import Database, alembic_config
from luthier.worker_protocol import Artifact
from search.policy.scheduler import EndCode
from tests.integration.store_samples import NOW, add_job, digest, file_record, leased_trial
from tests.integration.together import run_together


def tables_of(database: Database) -> set[str]:
    with database.read() as c:
        return set(inspect(c).get_table_names())


def test_an_empty_database_is_refused_with_the_command_that_helps(url: str) -> None:
    database = Database(url)
    with pytest.raises(Conflict, match=r"revision none.*luthier db upgrade"):
        database.check()
    database.close()


def test_an_upgraded_database_passes_the_check_and_has_every_table(database: Database) -> None:
    database.check()
    assert tables_of(database) == {*tables.metadata.tables, "alembic_version"}


def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.read() as c:
        assert compare_metadata(MigrationContext.configure(c), tables.metadata) == []


def test_upgrading_again_keeps_what_is_there(database: Database) -> None:
    with database.begin() as c:
        files.insert(c, file_record())
    database.upgrade()
    database.check()
    with database.read() as c:
        assert files.get(c, "file-a") == file_record()


def test_processes_that_upgrade_at_once_wait_for_each_other(url: str) -> None:
    upgrade = "Database(sys.argv[1]).upgrade()"
    run_together("from luthier.store.database import Database", upgrade, *[(url,)] * 4)
    database = Database(url)
    database.check()
    database.close()


def test_threads_that_upgrade_at_once_wait_for_each_other(url: str, tmp_path: Path) -> None:
    same, others = [url] * 3, [f"sqlite:///{tmp_path / str(i)}.db" for i in range(3)]
    opened = [Database(each) for each in same + others]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(Database.upgrade, opened))
    for database in opened:
        database.check()
        database.close()


def test_an_upgrade_that_fails_leaves_the_schema_as_it_was(url: str) -> None:
    database = Database(url)
    with database.begin() as c:
        c.execute(text("CREATE TABLE artifact_files (odd INTEGER)"))
    with pytest.raises(DBAPIError, match="artifact_files"):
        database.upgrade()
    assert tables_of(database) == {"artifact_files"}
    database.close()


REBUILD = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    with op.batch_alter_table("artifacts", recreate="auto") as artifacts:
        artifacts.alter_column("bytes", nullable=True, existing_type=sa.BigInteger())
"""


def test_a_migration_that_rebuilds_a_table_keeps_the_rows_that_refer_to_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = Artifact(kind="adapter", files={"adapter_model.safetensors": digest("weights")}, bytes=9)
    with database.begin() as c:
        artifacts.replace(c, leased_trial(c).id, [adapter])
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    newer = shutil.copytree(str(package_files("migrations")), tmp_path / "migrations")
    (newer / "versions" / "9999_rebuild.py").write_text(REBUILD.format(head=head))
    monkeypatch.setattr("luthier.store.database.package_files", lambda package: newer)
    database.upgrade()
    database.check()
    with database.read() as c:
        (trial,) = trials.of_job(c, "ftjob-a")
        assert artifacts.of_trial(c, trial.id) == [adapter]


OLD_REASONS = {
    "all 6 trials are done": EndCode.TRIALS,
    "all 4 designs that the pins and constraints allow have been tried": EndCode.SPACE_EXHAUSTED,
    "the last 20 designs that were proposed cannot run: they need 9 GiB": EndCode.REFUSED,
    "none of the last 12 designs came before trial 3, and more are not expected to": EndCode.NO_IMPROVEMENT,
    "what is left of the budget is needed to finish and confirm the best": EndCode.DEVICE_SECONDS,
    "the budget of 10 device-seconds is spent": EndCode.DEVICE_SECONDS,
    "the deadline 2030-01-01 00:01:00 UTC has passed": EndCode.DEADLINE,
    "a reason that no version has given": None,
}


def test_why_earlier_jobs_ended_is_read_from_their_events(database: Database) -> None:
    with database.begin() as c:
        for number, words in enumerate(OLD_REASONS):
            job = add_job(c, f"ftjob-{number}")
            events.add(c, job.id, "info", "message", "Trial 1 complete: 2 bits per byte.", NOW)
            events.add(c, job.id, "info", "message", f"No more trials: {words}.", NOW)
        add_job(c, "ftjob-running")
        for column in ("ended_reason", "truncation", "extensions", "resplits"):
            c.execute(text(f"ALTER TABLE jobs DROP COLUMN {column}"))
        c.execute(text("ALTER TABLE trials DROP COLUMN lengths"))
        c.execute(text("UPDATE alembic_version SET version_num = '0006'"))
    database.upgrade()
    with database.read() as c:
        found = [jobs.get(c, f"ftjob-{number}").ended_reason for number in range(len(OLD_REASONS))]
        assert found == list(OLD_REASONS.values())
        assert jobs.get(c, "ftjob-running").ended_reason is None
        assert jobs.get(c, "ftjob-running").truncation is None
        assert jobs.get(c, "ftjob-running").extensions == ()
        assert jobs.get(c, "ftjob-running").resplits == ()


def test_a_schema_of_a_newer_version_is_left_alone(database: Database) -> None:
    with database.begin() as c:
        c.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match=r"newer version.*9999"):
        database.upgrade()
    with pytest.raises(Conflict, match="revision 9999"):
        database.check()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://root@localhost/luthier", "luthier.db"])
def test_a_url_that_is_neither_a_file_nor_postgresql_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"sqlite:///FILE|postgresql"):
        Database(url)


@pytest.mark.parametrize("url", ["sqlite:///{folder}", "postgresql://luthier:hunter2@/luthier?host={folder}"])
def test_a_database_that_does_not_answer_is_named_without_its_password(url: str, tmp_path: Path) -> None:
    database = Database(url.format(folder=tmp_path))
    with pytest.raises(Unreachable, match=tmp_path.name) as caught:
        database.check()
    assert "hunter2" not in str(caught.value)
    database.close()


def test_an_exception_rolls_the_transaction_back(database: Database) -> None:
    def insert_and_fail() -> None:
        with database.begin() as c:
            files.insert(c, file_record())
            raise KeyError

    with pytest.raises(KeyError):
        insert_and_fail()
    with database.read() as c, pytest.raises(NotFound):
        files.get(c, "file-a")


def test_a_read_transaction_refuses_to_write(database: Database) -> None:
    with database.read() as c, pytest.raises(DBAPIError, match=r"readonly|read-only"):
        files.insert(c, file_record())
    with database.begin() as c:
        files.insert(c, file_record())


def test_a_read_transaction_sees_one_moment_while_others_write(database: Database) -> None:
    with database.read() as reader:
        assert files.list_(reader, None, 10) == ([], False)
        with database.begin() as c:
            files.insert(c, file_record())
        assert files.list_(reader, None, 10) == ([], False)
    with database.read() as reader:
        assert files.list_(reader, None, 10) == ([file_record()], False)


def test_transactions_that_read_before_they_write_wait_their_turn(database: Database) -> None:
    with database.begin() as c:
        add_job(c)

    def read_and_write(worker: int) -> None:
        for _ in range(10):
            with database.begin() as c:
                events.list_(c, "ftjob-a", None, 1)
                events.add(c, "ftjob-a", "info", "message", f"from {worker}", NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_and_write, range(8)))
    with database.read() as c:
        assert len(events.list_(c, "ftjob-a", None, 100)[0]) == 80


def test_a_row_of_an_unknown_job_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError), database.begin() as c:
        events.add(c, "ftjob-unknown", "info", "message", "hello", NOW)


def test_times_of_any_zone_come_back_as_the_same_moment_in_utc(database: Database) -> None:
    calcutta = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    with database.begin() as c:
        files.insert(c, file_record(created_at=calcutta))
    with database.read() as c:
        found = files.get(c, "file-a").created_at
    assert found == NOW
    assert found.utcoffset() == timedelta(0)


def test_a_time_without_a_zone_is_never_stored(database: Database) -> None:
    with pytest.raises(StatementError, match="no time zone"), database.begin() as c:
        trials.cancel_waiting(c, "ftjob-a", datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake under test


def test_a_nul_in_text_is_replaced_because_postgresql_cannot_hold_it(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        events.add(c, "ftjob-a", "info", "message", "before\0after", NOW, {"deep": ["\0"]})
    with database.read() as c:
        ((event,), _) = events.list_(c, "ftjob-a", None, 1)
    assert event.message == "before\N{REPLACEMENT CHARACTER}after"
    assert event.data == {"deep": ["\0"]}


def test_a_number_that_json_does_not_know_is_refused(database: Database) -> None:
    odd = file_record().model_copy(update={"profile": {"mean": float("nan")}})
    with pytest.raises((StatementError, ValueError), match="JSON compliant"), database.begin() as c:
        files.insert(c, odd)
