"""Simulated visitors of the whole demo site: what they do, and how long it takes to be seen."""
