"""Headrace beside its peers: one command, ``python3 -m benchmarks``."""
