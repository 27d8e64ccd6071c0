"""Jobs store why their search ended; for earlier jobs the code is derived from their events"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

PREFIX = "No more trials: "
# How the events of earlier versions begin, after the prefix, and the code that means the same.
CODES = (
    ("all % designs that the pins and constraints allow", "space_exhausted"),
    ("all % trials are done", "trials"),
    ("the last % designs that were proposed cannot run", "refused"),
    ("none of the last % designs came before trial", "no_improvement"),
    ("what is left of the budget is needed", "device_seconds"),
    ("the budget of % device-seconds is spent", "device_seconds"),
    ("the deadline % has passed", "deadline"),
)


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("ended_reason", sa.String(16)))
    job = sa.table("jobs", sa.column("id", sa.String), sa.column("ended_reason", sa.String))
    event = sa.table("events", sa.column("job_id", sa.String), sa.column("message", sa.Text))
    for words, code in CODES:
        said = sa.exists().where(event.c.job_id == job.c.id, event.c.message.like(f"{PREFIX}{words}%"))
        op.execute(job.update().where(job.c.ended_reason.is_(None), said).values(ended_reason=code))
