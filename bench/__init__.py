"""Benchmarks: each one command, each printing ratios against a named peer in the same run."""
