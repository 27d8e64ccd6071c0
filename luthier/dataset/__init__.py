"""Datasets: reading a user's file, normalising its rows to TRL's columns, describing them and splitting them.

load(path, filename)  → Loaded     every accepted format, or a DatasetError that lists the faults row by row
profile(rows, kind)   → Profile    sizes, lengths, repeats and leaks, before anything is trained
split(rows, kind)     → Splits     train, validation and test by a hash of the content
write_rows, read_rows              the one way rows are stored: JSON Lines
"""

from luthier.dataset.profile import Histogram, Lengths, Profile, profile
from luthier.dataset.read import MIN_ROWS, Loaded, load
from luthier.dataset.rows import Row, read_rows, tools_field, write_rows
from luthier.dataset.splits import Splits, split

__all__ = [
    "MIN_ROWS",
    "Histogram",
    "Lengths",
    "Loaded",
    "Profile",
    "Row",
    "Splits",
    "load",
    "profile",
    "read_rows",
    "split",
    "tools_field",
    "write_rows",
]
