"""Rungs, measured usage, and scores of each test row"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("trials") as trials:
        trials.add_column(sa.Column("goal", sa.Integer()))
        trials.add_column(sa.Column("measured", sa.JSON(), nullable=False, server_default="[]"))
        trials.add_column(sa.Column("usage", sa.JSON()))
    with op.batch_alter_table("trials") as trials:
        trials.alter_column("measured", server_default=None)
    op.create_table(
        "test_scores",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_test_scores_trials"),
        sa.PrimaryKeyConstraint("trial_id", name="pk_test_scores"),
    )
    # What older versions noted at rungs was not a score of the judge's.
    op.execute("DELETE FROM rungs")
