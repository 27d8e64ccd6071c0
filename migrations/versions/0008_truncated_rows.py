"""Jobs store how many of their rows are truncated; of earlier jobs it is not known"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("truncation", sa.JSON()))
