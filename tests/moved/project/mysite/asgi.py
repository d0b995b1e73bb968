import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path, re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

# Before anything that imports models.
django_asgi_app = get_asgi_application()

from chat.routing import websocket_urlpatterns as chat_patterns  # noqa: E402
from feed.consumers import FeedConsumer  # noqa: E402
from members.consumers import MemberConsumer  # noqa: E402
from notices.consumers import NoticeConsumer  # noqa: E402
from quiz.consumers import QuizConsumer  # noqa: E402
from theme.consumers import ThemeConsumer, ThemePageConsumer  # noqa: E402
from thumbnails.consumers import ThumbnailConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                path("feed/", FeedConsumer.as_asgi()),
                path("theme/", AuthMiddlewareStack(ThemePageConsumer.as_asgi())),
                re_path(r"", django_asgi_app),
            ]
        ),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                URLRouter(
                    [
                        *chat_patterns,
                        path("ws/notices/", NoticeConsumer.as_asgi()),
                        path("ws/quiz/<int:round>/", QuizConsumer.as_asgi()),
                        path("ws/members/", MemberConsumer.as_asgi()),
                        path("ws/theme/", ThemeConsumer.as_asgi()),
                    ]
                )
            )
        ),
        "channel": ChannelNameRouter({"thumbnails": ThumbnailConsumer.as_asgi()}),
    }
)
