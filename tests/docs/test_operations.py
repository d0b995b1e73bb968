"""The page on the operations page: its examples work."""

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import RequestFactory

from headrace.operations.admin import SOCKET_PATH, OperationsAdmin, admin_of
from headrace.operations.models import Operations
from headrace.routing import ProtocolTypeRouter
from tests.documented import documented


@pytest.fixture
def page():
    site = admin.site
    before = site.get_model_admin(Operations)
    yield documented("operations.md")
    site.unregister(Operations)
    site.register(Operations, type(before))


def test_the_examples_are_what_a_site_needs(page):
    assert {"django.contrib.admin", "headrace.operations"} <= set(page.INSTALLED_APPS)
    assert set(page.INSTALLED_APPS) - {"django.contrib.staticfiles"} <= set(settings.INSTALLED_APPS)
    assert isinstance(page.application, ProtocolTypeRouter)
    assert [str(route.pattern) for route in page.operations] == [SOCKET_PATH]


def test_the_rights_of_the_example_are_stricter(page):
    mine = admin_of(admin.site)
    assert isinstance(mine, page.SuperusersOnly)
    request = RequestFactory().get("/")
    for is_superuser in (True, False):
        request.user = User(is_staff=True, is_superuser=is_superuser)
        assert mine.has_view_permission(request) is is_superuser
        assert OperationsAdmin(Operations, admin.site).has_view_permission(request)
