"""The groups."""

__all__ = ["KEEPER", "PLAYERS"]

#: The process that runs the pond hears here what players do.
KEEPER = "arena.keeper"
#: Every page that shows the pond.
PLAYERS = "arena.players"
