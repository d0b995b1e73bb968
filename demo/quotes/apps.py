from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from millpond.apps import Showcase


class QuotesConfig(AppConfig):
    name = "quotes"
    notification_kinds = {"price": _("Price alert")}
    showcase = Showcase(
        order=60,
        title=_("Quotes"),
        summary=_("Two hundred and forty stocks and funds, as fast as you want to read them."),
        url_name="quotes",
        icon="M5 4v16M5 8h0M3 8h4v7H3zM12 3v15M10 6h4v8h-4zM19 6v15M17 10h4v7h-4z",
        sources=(
            "quotes/consumers.py",
            "quotes/market.py",
            "quotes/mirror.py",
            "quotes/simulation.py",
            "quotes/models.py",
            "quotes/routing.py",
            "quotes/groups.py",
            "live/consumers.py",
        ),
    )
