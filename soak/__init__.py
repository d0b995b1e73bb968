"""A server under a small, steady load for a long time, and whether it stays as it was."""
