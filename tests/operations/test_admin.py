"""The page in the admin: who finds it, who may see it, and what stands in it."""

import gettext
import json
import re
from pathlib import Path

import pytest
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.staticfiles import finders
from django.core import checks
from django.core.exceptions import PermissionDenied
from django.test import Client, RequestFactory
from django.urls import reverse, set_script_prefix

from headrace.operations.admin import OperationsAdmin, admin_of
from headrace.operations.models import Operations
from headrace.operations.routing import websocket_urlpatterns
from headrace.operations.words import words

pytestmark = pytest.mark.django_db


def browser(name=None, **rights):
    client = Client()
    if name is not None:
        client.force_login(User.objects.create_user(name, password="x", **rights))
    return client


@pytest.fixture
def url():
    return reverse("admin:headrace_operations_operations_changelist")


def words_of(response):
    found = re.search(r'id="hr-words" type="application/json">(.*?)</script>', response.text)
    return json.loads(found[1])


def test_staff_find_the_page_in_the_index(url):
    response = browser("staff", is_staff=True).get(reverse("admin:index"))
    assert f'href="{url}"' in response.text
    assert "Headrace" in response.text


def test_the_page_knows_where_its_socket_is(url):
    response = browser("staff", is_staff=True).get(url)
    assert response.status_code == 200
    (route,) = websocket_urlpatterns
    assert f'data-socket="/{route.pattern}"' in response.text
    assert 'data-may-close="no"' in response.text
    assert response.headers["Cache-Control"].startswith("max-age=0")


def test_the_socket_is_below_where_the_site_is_mounted(url):
    client = browser("root", is_staff=True, is_superuser=True)
    set_script_prefix("/below/")
    try:
        response = client.get(url)
    finally:
        set_script_prefix("/")
    assert 'data-socket="/below/ws/headrace/operations/"' in response.text
    assert 'data-may-close="yes"' in response.text


@pytest.mark.parametrize("client", [browser, lambda: browser("guest")])
def test_nobody_else_may_see_it(url, client):
    response = client().get(url)
    assert response.status_code == 302
    assert "/login/" in response.url


def test_a_class_of_ones_own_decides():
    class Nobody(OperationsAdmin):
        def has_view_permission(self, request, obj=None):
            return False

    site = admin.AdminSite()
    site.register(Operations, Nobody)
    request = RequestFactory().get("/")
    request.user = User(is_staff=True)
    assert not admin_of(site).has_close_permission(request)
    with pytest.raises(PermissionDenied):
        admin_of(site).page(request)


def test_another_admin_of_the_model_shows_no_page():
    site = admin.AdminSite()
    site.register(Operations, admin.ModelAdmin)
    assert admin_of(site) is None


def test_there_is_nothing_to_add_change_or_delete():
    mine = admin_of(admin.site)
    request = RequestFactory().get("/")
    request.user = User(is_staff=True, is_superuser=True)
    assert mine.get_model_perms(request) == {
        "add": False,
        "change": False,
        "delete": False,
        "view": True,
    }
    request.user = AnonymousUser()
    assert not mine.has_module_permission(request)


def test_nothing_in_the_page_is_inline_or_from_elsewhere(url):
    text = browser("staff", is_staff=True).get(url).text
    page = text[text.index('<div id="hr-operations"') :]
    assert re.findall(r"\s(?:style|on\w+)=", page) == []
    assert re.findall(r"<script(?![^>]*(?:src=|application/json))", text) == []
    assert re.findall(r'(?:src|href)="(?:https?:)?//', text) == []
    for path in re.findall(r'(?:src|href)="/?static/(headrace/[^"]+)"', text):
        assert finders.find(path), path


def test_the_scripts_have_a_word_for_all_they_say(url):
    words = words_of(browser("staff", is_staff=True).get(url))
    with open(finders.find("headrace/operations/operations.js")) as file:
        used = set(re.findall(r"\bwords\.(\w+)", file.read()))
    assert used == set(words)


def test_the_model_has_no_table_and_one_permission(django_user_model):
    assert str(Operations()) == "Operations"
    assert not Operations._meta.managed
    user = django_user_model.objects.create_user("x", is_superuser=True)
    assert "headrace_operations.close_connection" in user.get_all_permissions()


def test_an_app_without_the_admin_is_told_what_is_missing(settings):
    def said():
        return [each for each in checks.run_checks() if each.id == "headrace.operations.E001"]

    assert said() == []
    settings.INSTALLED_APPS = [
        name for name in settings.INSTALLED_APPS if name != "django.contrib.admin"
    ]
    (error,) = said()
    assert "django.contrib.admin" in error.msg


@pytest.mark.parametrize(("language", "said"), [("zh-hans", "工作进程"), ("fr", "Workers")])
def test_the_page_is_in_the_language_of_who_looks(url, settings, language, said):
    settings.LANGUAGE_CODE = language
    response = browser("staff", is_staff=True).get(url)
    assert f">{said}</h2>" in response.text
    assert words_of(response)["workers"] == said


def test_every_text_is_translated_and_compiled():
    folder = Path(finders.find("headrace/operations/operations.js")).parents[3] / "locale"
    for source in folder.glob("*/LC_MESSAGES/django.po"):
        texts = source.read_text()
        pairs = re.findall(r'^msgid "(.+)"\nmsgstr "(.*)"$', texts, re.MULTILINE)
        with source.with_suffix(".mo").open("rb") as file:
            compiled = gettext.GNUTranslations(file)
        assert {
            text
            for each in words().values()
            for text in (each.values() if isinstance(each, dict) else [each])
            if text not in dict(pairs)
        } == set()
        for text, translated in pairs:
            assert translated
            assert compiled.gettext(text) == translated
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", translated))
