"""Notes and tags of jobs; stopping of single trials, their logs and samples of answers"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("notes", sa.Text(), nullable=False, server_default=""))
        jobs.add_column(sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("notes", server_default=None)
        jobs.alter_column("tags", server_default=None)
    with op.batch_alter_table("trials") as trials:
        trials.add_column(sa.Column("stopped", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("trials") as trials:
        trials.alter_column("stopped", server_default=None)
    op.create_table(
        "log_lines",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("lease", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_log_lines_trials"),
        sa.PrimaryKeyConstraint("trial_id", "lease", "number", name="pk_log_lines"),
    )
    op.create_table(
        "samples",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("samples", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_samples_trials"),
        sa.PrimaryKeyConstraint("trial_id", name="pk_samples"),
    )
