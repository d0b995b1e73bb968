"""The site as one ASGI application: HTTP goes to Django, WebSockets to the consumers."""

import os

from django.urls import re_path

from millpond.pages import Pages

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "millpond.settings")
pages = Pages()  # before the imports that need Django's apps

from headrace.auth import AuthMiddlewareStack  # noqa: E402
from headrace.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from headrace.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from headrace.threads import ThreadPoolMiddleware  # noqa: E402
from millpond.routing import http_urlpatterns, websocket_urlpatterns  # noqa: E402
from millpond.staticfiles import StaticFiles  # noqa: E402

application = ProtocolTypeRouter(
    {
        # Django answers what none of the applications answers past it.
        "http": StaticFiles(
            URLRouter([*http_urlpatterns, re_path("", ThreadPoolMiddleware(pages))]),
        ),
        # Browsers send cookies along with a WebSocket to any site: the origin is checked first.
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter(websocket_urlpatterns))
        ),
    }
)
