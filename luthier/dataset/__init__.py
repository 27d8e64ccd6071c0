"""Datasets: read a user's file, normalise its rows to TRL's columns, profile them and split them.

load(path, filename)  → Loaded     any accepted format; DatasetError lists the faults row by row
profile(rows, kind)   → Profile    sizes, lengths, duplicates and leaks
split(rows, kind)     → Splits     train, validation and test by a hash of the content
write_rows, read_rows              rows as they are stored: JSON Lines
"""

from luthier.dataset.profile import Histogram, Lengths, Profile, profile
from luthier.dataset.read import MIN_ROWS, Loaded, load
from luthier.dataset.rows import Row, read_rows, tools_field, write_rows
from luthier.dataset.splits import Splits, about_held_out, split

__all__ = [
    "MIN_ROWS",
    "Histogram",
    "Lengths",
    "Loaded",
    "Profile",
    "Row",
    "Splits",
    "about_held_out",
    "load",
    "profile",
    "read_rows",
    "split",
    "tools_field",
    "write_rows",
]
