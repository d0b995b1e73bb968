"""The pages of the site."""

from django.urls import include, path

urlpatterns = [
    path("", include("chat.urls")),
    path("", include("accounts.urls")),
]
