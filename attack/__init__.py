"""Hostile clients against a real server, and what a well-behaved one notices of them."""
