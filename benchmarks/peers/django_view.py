"""A Django site with one view, behind the middleware that a new project has."""

from django.conf import settings

settings.configure(
    SECRET_KEY="only for benchmarks",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
)

from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path


async def hello(request):
    return HttpResponse("Hello")


urlpatterns = [path("hello/", hello)]
application = get_asgi_application()
