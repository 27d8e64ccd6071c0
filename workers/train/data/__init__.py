"""Axis one, the task and its data: rows become tokens with targets, tokens become unpadded batches."""
