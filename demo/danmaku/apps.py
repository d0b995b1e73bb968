from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from millpond.apps import Showcase


class DanmakuConfig(AppConfig):
    name = "danmaku"
    verbose_name = _("Comments over the film")
    showcase = Showcase(
        order=50,
        title=_("Danmaku"),
        summary=_("A film, and everyone's comments flying over it. Send in a crowd: it holds."),
        url_name="danmaku",
        icon="M3.5 5h17v14h-17zM7 9.5h6M10.5 13h7",
        sources=(
            "danmaku/consumers.py",
            "danmaku/stream.py",
            "danmaku/rule.py",
            "danmaku/models.py",
            "danmaku/groups.py",
            "danmaku/moderation.py",
            "danmaku/signals.py",
            "danmaku/static/danmaku/js/lanes.js",
            "danmaku/static/danmaku/js/stage.js",
            "danmaku/film/draw.py",
        ),
    )

    def ready(self):
        from danmaku import signals  # noqa: F401 - it connects itself
