"""Inference: host.py is a thread of the worker; process.py is the separate process that holds the model."""
