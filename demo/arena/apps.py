from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from millpond.apps import Showcase


class ArenaConfig(AppConfig):
    name = "arena"
    showcase = Showcase(
        order=40,
        title=_("Ducks"),
        summary=_("Race your friends for grain on the mill pond, twenty ticks a second."),
        url_name="arena",
        icon="M3 9.5h3.5A3.8 3.8 0 1 1 13 12h8c0 4.500-3 7-7.500 7S6 16.500 6.500 12.500z",
        sources=(
            "arena/consumers.py",
            "arena/routing.py",
            "arena/groups.py",
            "arena/keeper.py",
            "arena/models.py",
            "arena/world.py",
            "arena/wire.py",
            "arena/metronome.py",
            "arena/static/arena/js/arena.js",
            "arena/static/arena/js/player.js",
        ),
    )
