"""Benchmarks. Each is one command, and compares Luthier with a named peer in the same run."""
