"""``python -m headrace``: the command ``headrace``."""

from .cli import main

main()
