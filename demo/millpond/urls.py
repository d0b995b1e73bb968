"""The pages of the site."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView
from django.views.i18n import set_language

from millpond import views
from millpond.words import words

urlpatterns = [
    path("", views.start, name="start"),
    path("source/<path:path>", views.source, name="source"),
    path("language/", login_not_required(set_language), name="set_language"),
    path(
        "words/<slug:language>/<slug:version>.js",
        login_not_required(words),
        name="words",
    ),
    path(
        "favicon.ico",  # for pages that name none: those of the admin
        login_not_required(RedirectView.as_view(url=static("millpond/icon.svg"))),
    ),
    path("admin/", admin.site.urls),
    path("arena/", include("arena.urls")),
    path("chat/", include("chat.urls")),
    path("danmaku/", include("danmaku.urls")),
    path("documents/", include("documents.urls")),
    path("notifications/", include("notifications.urls")),
    path("polling/", include("polling.urls")),
    path("quotes/", include("quotes.urls")),
    path("", include("accounts.urls")),
]
