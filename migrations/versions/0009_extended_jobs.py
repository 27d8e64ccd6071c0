"""Jobs store the extensions of their searches; earlier jobs have none"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("extensions", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("extensions", server_default=None)
