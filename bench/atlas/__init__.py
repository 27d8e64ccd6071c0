"""Recorded learning curves of all designs of four grids. Searches can be replayed on them in seconds.

tasks.py   four tasks on real text, each with a grid of designs
record.py  trains all designs and records their curves: `python -m bench.atlas.record`
table.py   reads the recorded curves
past.py    reads the recorded past jobs, for the warm start
"""
