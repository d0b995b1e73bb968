"""Headrace, the real-time stack for Django."""

__version__ = "0.1.0"
