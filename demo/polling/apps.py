from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from millpond.apps import Showcase


class PollingConfig(AppConfig):
    name = "polling"
    showcase = Showcase(
        order=70,
        title=_("Four ways"),
        summary=_("Ajax polling, long polling, server-sent events and WebSocket, side by side."),
        url_name="polling",
        icon="M3 6h10M3 6l3-3M3 6l3 3M21 6h-3M3 12h18M21 12l-3-3M21 12l-3 3M3 18h18M3 18l3-3"
        "M3 18l3 3M21 18l-3-3M21 18l-3 3",
        sources=(
            "polling/consumers.py",
            "polling/feed.py",
            "polling/kept.py",
            "polling/order.py",
            "polling/visitors.py",
            "polling/meter.py",
            "polling/steps.py",
            "polling/ledger.py",
            "polling/handshake.py",
            "polling/models.py",
            "polling/groups.py",
            "polling/routing.py",
            "polling/static/polling/js/ways.js",
        ),
    )
