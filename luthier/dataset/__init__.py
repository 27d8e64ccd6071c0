"""Datasets: read a user's file, normalise its rows to TRL's columns, profile them and split them.

load(path, filename)  → Loaded     any accepted format; DatasetError lists the faults row by row
profile(rows, kind)   → Profile    sizes, lengths, duplicates and leaks
split(rows, kind)     → Splits     train, validation and test by a hash of the content; few rows also in further ways
write_rows, read_rows              rows as they are stored: JSON Lines
"""

from luthier.dataset.profile import Histogram, Lengths, Profile, profile
from luthier.dataset.read import MIN_ROWS, Loaded, load
from luthier.dataset.rows import Row, read_rows, tools_field, write_rows
from luthier.dataset.splits import ENOUGH, Fold, Splits, about_held_out, split

__all__ = [
    "ENOUGH",
    "MIN_ROWS",
    "Fold",
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
