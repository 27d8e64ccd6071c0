"""Write the next migration: the difference between the tables in the code and the existing migrations.

    python -m migrations "what changes"

Review the result before committing it: Alembic detects neither renames nor changes of data. There are no downgrades,
because they would lose data: an older version needs an older backup.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.script import ScriptDirectory

from luthier.store.database import Database, alembic_config


def main(message: str) -> None:
    with TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'empty.db'}")
        database.upgrade()
        with database.begin() as connection:
            config = alembic_config(connection)
            written = len(list(ScriptDirectory.from_config(config).walk_revisions()))
            command.revision(config, message, autogenerate=True, rev_id=f"{written + 1:04}")
        database.close()


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
