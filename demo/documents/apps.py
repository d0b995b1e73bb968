from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from millpond.apps import Showcase


class DocumentsConfig(AppConfig):
    name = "documents"
    notification_kinds = {"document": _("Shared document")}
    showcase = Showcase(
        order=70,
        title=_("Documents"),
        summary=_("Write one text with several hands, on the train as well: it merges."),
        url_name="documents",
        icon="M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h4",
        sources=(
            "documents/consumers.py",
            "documents/replica.py",
            "documents/presence.py",
            "documents/wire.py",
            "documents/models.py",
            "documents/groups.py",
            "documents/routing.py",
            "documents/static/documents/js/document.js",
            "documents/static/documents/js/provider.js",
            "documents/frontend/vendor.js",
        ),
    )
