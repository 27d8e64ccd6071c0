"""Generation requests, the model that each worker has loaded, and paused jobs"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("paused", server_default=None)
    with op.batch_alter_table("workers") as workers:
        workers.add_column(sa.Column("generates", sa.String()))
    op.create_table(
        "generations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("question", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String()),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("wanted_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("said", sa.Integer(), nullable=False),
        sa.Column("answer", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_generations"),
    )
    op.create_index("ix_generations_state_created_at", "generations", ["state", "created_at"])
    op.create_table(
        "generation_pieces",
        sa.Column("generation_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generations.id"], name="fk_generation_pieces_generations", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("generation_id", "position", name="pk_generation_pieces"),
    )
