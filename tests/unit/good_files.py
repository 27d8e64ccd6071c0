"""Files that must be accepted: every format in every container, each with the first row that comes out of it."""

from __future__ import annotations

from tests.unit.good_chats import CHATS, PROMPTS
from tests.unit.good_containers import CONTAINERS
from tests.unit.good_file import ROWS, GoodFile
from tests.unit.good_layouts import LAYOUTS
from tests.unit.good_pairs import PAIRS, TEXTS
from tests.unit.good_preferences import PREFERENCES, UNPAIRED

__all__ = ["GOOD_FILES", "ROWS", "GoodFile"]

GOOD_FILES = [*TEXTS, *PAIRS, *LAYOUTS, *CHATS, *PROMPTS, *PREFERENCES, *UNPAIRED, *CONTAINERS]
