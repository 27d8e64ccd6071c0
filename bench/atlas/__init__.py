"""Recorded learning curves of every design of a few grids, on which searches are replayed in seconds.

tasks.py   four tasks on real text, each with a grid of designs
record.py  trains them all: `python -m bench.atlas.record`
table.py   reads what was recorded
"""
