"""Trials store how long each stage was trained; of earlier trials it is not known"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    with op.batch_alter_table("trials") as trials:
        trials.add_column(sa.Column("lengths", sa.JSON()))
