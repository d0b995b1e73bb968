"""INSTALLED_APPS: one entry for Headrace, where Daphne's was or else that of Channels."""

import pytest

from headrace.migrating.installed_apps import App
from headrace.migrating.python import migrate
from tests.migrating.moving import becomes, moved, stays


def test_the_list_of_the_tutorial():
    becomes(
        """\
        INSTALLED_APPS = [
            'daphne',
            'chat',
            'django.contrib.staticfiles',
        ]
        """,
        """\
        INSTALLED_APPS = [
            'headrace',
            'chat',
            'django.contrib.staticfiles',
        ]
        """,
    )


def test_both_become_one_in_the_place_of_daphne():
    becomes(
        """\
        INSTALLED_APPS: list[str] = [
            # Must come first.
            "daphne",  # the server
            "django.contrib.staticfiles",
            # Websockets:
            "channels",  # the layers
            "chat",
        ]
        """,
        """\
        INSTALLED_APPS: list[str] = [
            # Must come first.
            "headrace",  # the server
            "django.contrib.staticfiles",
            # Websockets:
            "chat",
        ]
        """,
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["channels"]', '["headrace"]'),
        ('["channels.apps.ChannelsConfig"]', '["headrace.apps.HeadraceConfig"]'),
        ('["daphne.apps.DaphneConfig"]', '["headrace"]'),
        ('["daphne", "channels"]', '["headrace"]'),
        ('["daphne", "channels",]', '["headrace",]'),
        ('["channels", "daphne"]', '["headrace"]'),
        ('["channels", "x", "daphne"]', '["x", "headrace"]'),
        ('["daphne", "x", "channels"]', '["headrace", "x"]'),
        ('["daphne", "x", "channels", ]', '["headrace", "x", ]'),
        ('["daphne", "channels", "x"]', '["headrace", "x"]'),
        ('["headrace", "channels", "x", "daphne"]', '["headrace", "x"]'),
        ('["daphne",\n     "channels"]', '["headrace"]'),
        ('["daphne",  # server\n     "channels"]', '["headrace",  # server\n     ]'),
        ('("daphne", "channels")', '("headrace",)'),
        ('("channels", "daphne")', '("headrace",)'),
        ('("channels", "daphne",)', '("headrace",)'),
        ('("daphne", "channels",)', '("headrace",)'),
        ('("daphne", "x", "channels")', '("headrace", "x")'),
        ('("daphne",\n     "channels",\n)', '("headrace",\n)'),
        ('["daphne"] + ["x"] + ["channels"]', '["headrace"] + ["x"] + []'),
        ('["daphne", *OTHERS, "channels"]', '["headrace", *OTHERS]'),
        ('["daphne" if x else "y", "channels"]', '["daphne" if x else "y", "headrace"]'),
        ('["x", "channels", "daphne",\n     ]', '["x", "headrace",\n     ]'),
        ('["headrace", "channels", "daphne"]', '["headrace", ]'),
        ('["daphne", "channels" ,  "x"]', '["headrace", "x"]'),
    ],
)
def test_forms_of_lists(old, new):
    after, _ = moved(f"INSTALLED_APPS = {old}\nx = 1\n")
    assert after == f"INSTALLED_APPS = {new}\nx = 1\n"


def test_lists_that_are_added_up():
    becomes(
        """\
        DJANGO_APPS = ["django.contrib.auth"]
        THIRD_PARTY_APPS = (
            "channels",
            "rest_framework",
        )
        INSTALLED_APPS = ["daphne"] + DJANGO_APPS + list(THIRD_PARTY_APPS)
        """,
        """\
        DJANGO_APPS = ["django.contrib.auth"]
        THIRD_PARTY_APPS = (
            "rest_framework",
        )
        INSTALLED_APPS = ["headrace"] + DJANGO_APPS + list(THIRD_PARTY_APPS)
        """,
    )


def test_a_list_that_is_built_in_steps():
    becomes(
        """\
        INSTALLED_APPS = ["x"]
        INSTALLED_APPS += ["channels"]
        INSTALLED_APPS += ("daphne", "y")
        """,
        """\
        INSTALLED_APPS = ["x"]
        INSTALLED_APPS += []
        INSTALLED_APPS += ("headrace", "y")
        """,
    )


@pytest.mark.parametrize(
    "statement",
    [
        'INSTALLED_APPS.insert(0, "daphne")',
        'INSTALLED_APPS += ["daphne"]',
        'INSTALLED_APPS = ["daphne", *INSTALLED_APPS]',
        'INSTALLED_APPS = ["daphne"] + INSTALLED_APPS',
    ],
)
def test_an_app_that_is_added_on_condition(statement):
    after, remarks = moved(f'INSTALLED_APPS = ["channels"]\nif DEBUG:\n    {statement}\n')
    assert after == f'INSTALLED_APPS = ["headrace"]\nif DEBUG:\n    {statement}\n'
    assert [line for line, _ in remarks] == [3]
    assert "line 1 lists already" in remarks[0][1]

    after, remarks = moved(f'INSTALLED_APPS = ["x"]\nif DEBUG:\n    {statement}\n')
    assert after == f'INSTALLED_APPS = ["x"]\nif DEBUG:\n    {statement}\n'.replace(
        "daphne", "headrace"
    )
    assert remarks == []


def test_lists_that_exclude_each_other():
    becomes(
        """\
        if DEBUG:
            INSTALLED_APPS = ["daphne", "channels"]
        else:
            INSTALLED_APPS = ["channels"]

        class Base(Configuration):
            INSTALLED_APPS = ["channels", "x"]

        class Test(Base):
            INSTALLED_APPS = ["channels"]
        """,
        """\
        if DEBUG:
            INSTALLED_APPS = ["headrace"]
        else:
            INSTALLED_APPS = ["headrace"]

        class Base(Configuration):
            INSTALLED_APPS = ["headrace", "x"]

        class Test(Base):
            INSTALLED_APPS = ["headrace"]
        """,
    )


def test_tenants():
    becomes(
        """\
        SHARED_APPS = ["daphne", "channels"]
        TENANT_APPS = ["channels"]
        INSTALLED_APPS = SHARED_APPS + [app for app in TENANT_APPS if app not in SHARED_APPS]
        """,
        """\
        SHARED_APPS = ["headrace"]
        TENANT_APPS = ["headrace"]
        INSTALLED_APPS = SHARED_APPS + [app for app in TENANT_APPS if app not in SHARED_APPS]
        """,
    )


def test_other_places_where_apps_are_listed():
    becomes(
        """\
        settings.configure(INSTALLED_APPS=["daphne", "channels", "x"], OTHER=["channels"])
        settings.INSTALLED_APPS = settings.INSTALLED_APPS + ("channels",)

        @override_settings(INSTALLED_APPS=("channels",))
        @modify_settings(INSTALLED_APPS={"append": "channels", "remove": ["daphne", "x"]})
        def test(settings):
            config = {"INSTALLED_APPS": ["channels"], "apps": "none"}
            assert "channels" in settings.INSTALLED_APPS
            other = ["channels", "daphne"]
            return lambda INSTALLED_APPS=1: "channels"
        """,
        """\
        settings.configure(INSTALLED_APPS=["headrace", "x"], OTHER=["channels"])
        settings.INSTALLED_APPS = settings.INSTALLED_APPS + ("headrace",)

        @override_settings(INSTALLED_APPS=("headrace",))
        @modify_settings(INSTALLED_APPS={"append": "headrace", "remove": ["headrace", "x"]})
        def test(settings):
            config = {"INSTALLED_APPS": ["headrace"], "apps": "none"}
            assert "headrace" in settings.INSTALLED_APPS
            other = ["channels", "daphne"]
            return lambda INSTALLED_APPS=1: "channels"
        """,
    )


def test_a_comparison_with_daphne():
    stays(
        'INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "daphne"]\n',
        (1, "stands for Channels and Daphne"),
    )
    stays('if "headrace" in INSTALLED_APPS: pass\nif "daphne" in other: pass\n# channels\n')


def test_the_place_before_static_files():
    after, remarks = moved('INSTALLED_APPS = ["django.contrib.staticfiles", "channels"]\n')
    assert after == 'INSTALLED_APPS = ["django.contrib.staticfiles", "headrace"]\n'
    assert len(remarks) == 1
    assert "put it before" in remarks[0][1]


def test_where_the_settings_name_headrace_now():
    source = 'INSTALLED_APPS = ["channels"]\n\nOTHER = 1\nINSTALLED_APPS2 = ["channels"]\n'
    assert migrate(source).apps == (App(1, adds=False),)
    assert migrate('INSTALLED_APPS += ["daphne"]\n').apps == (App(1, adds=True),)
    assert migrate('f(INSTALLED_APPS=["daphne"])\n').apps == ()


def test_a_list_without_a_value():
    stays('INSTALLED_APPS: list[str]\nx = "channels"\n')
