"""Headrace, the real-time stack for Django."""

__version__ = "0.1.0"

#: The alias of the channel layer that is meant where none is named.
DEFAULT_CHANNEL_LAYER = "default"
