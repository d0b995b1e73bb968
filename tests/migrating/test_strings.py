"""Strings: dotted paths, modules that are named, loggers, annotations."""

import pytest

from tests.migrating.moving import becomes, moved, stays


def test_dotted_paths_anywhere():
    becomes(
        """\
        CHANNEL_LAYERS = {"default": {"BACKEND": 'channels.layers.InMemoryChannelLayer'}}
        default_app_config = "channels.apps.ChannelsConfig"

        @mock.patch("channels.layers.get_channel_layer")
        @mock.patch.object(x, r"channels.db.database_sync_to_async.thread_handler")
        def test(patched):
            import_string(u'channels.routing.URLRouter')
        """,
        """\
        CHANNEL_LAYERS = {"default": {"BACKEND": 'headrace.layers.InMemoryChannelLayer'}}
        default_app_config = "headrace.apps.HeadraceConfig"

        @mock.patch("headrace.layers.get_channel_layer")
        @mock.patch.object(x, r"headrace.db.database_sync_to_async.thread_handler")
        def test(patched):
            import_string(u'headrace.routing.URLRouter')
        """,
    )


def test_strings_that_mean_something_else():
    stays(
        '''\
        """channels.layers.get_channel_layer"""
        render("channels/index.html")
        perm = "channels.add_channel"
        event = {"channels": ["daphne", "channels"], "type": "channels"}
        data = b"channels.layers"
        text = "see channels.layers.get_channel_layer for more"
        f"{channels.layers}"
        f"mychannels.layers{x}"
        f"channels {x}"
        f""
        "channels" "more"
        '''
    )


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ('mock.patch("channels.layers._private")', "private"),
        ('mock.patch("channels.layers.nothing")', "no public name"),
        ('import_module("channels.handler")', "Channels 1"),
        ('x = "asgi_redis.RedisChannelLayer"', "Channels 1"),
        ('x = "channels.layers." "get_channel_layer"', "in parts"),
        ('x = f"channels.layers.{name}"', "formatted"),
        (r'x = "channels\x2elayers.get_channel_layer"', "escapes"),
        ('run("daphne -b 0.0.0.0 mysite.asgi:application")', "headrace serve"),
        ('run("daphne mysite.asgi:application")', "headrace serve"),
        ('find_spec("daphne")', "Daphne"),
    ],
)
def test_what_is_left_to_people(source, advice):
    stays(f"x = 1\n{source}\n", (2, advice))


def test_names_of_modules():
    becomes(
        """\
        import_module("channels")
        importlib.util.find_spec("channels")
        pytest.importorskip("channels")
        apps.is_installed("channels")
        apps.get_app_config("channels")
        f("channels")
        """,
        """\
        import_module("headrace")
        importlib.util.find_spec("headrace")
        pytest.importorskip("headrace")
        apps.is_installed("headrace")
        apps.get_app_config("headrace")
        f("channels")
        """,
    )


def test_both_redis_layers_become_one():
    layers = 'CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}\n'
    becomes(
        layers + 'x = "channels_redis.pubsub.RedisPubSubChannelLayer"\n',
        layers.replace("channels_redis.core", "headrace.layers.redis")
        + 'x = "headrace.layers.redis.RedisChannelLayer"\n',
    )


def test_loggers():
    becomes(
        """\
        LOGGING = {
            "handlers": {"daphne": {}},
            "loggers": {
                "": {},
                "django.channels.server": {"level": "INFO"},
                "channels_redis": {},
                'django.channels': {},
            },
        }
        logging.getLogger("daphne").setLevel("ERROR")
        logging.getLogger("django.channels.worker")
        with self.assertLogs("daphne.server"), caplog.at_level(10, logger="daphne"):
            pass
        """,
        """\
        LOGGING = {
            "handlers": {"daphne": {}},
            "loggers": {
                "": {},
                "django.server": {"level": "INFO"},
                "channels_redis": {},
                'headrace': {},
            },
        }
        logging.getLogger("headrace.server").setLevel("ERROR")
        logging.getLogger("headrace.worker")
        with self.assertLogs("headrace.server"), caplog.at_level(10, logger="headrace.server"):
            pass
        """,
    )


def test_loggers_that_become_one():
    after, remarks = moved(
        """\
        LOGGING = {"loggers": {
            "daphne": {"level": "INFO"},
            "daphne.server": {"level": "DEBUG"},
        }}
        """
    )
    assert '"headrace.server": {"level": "INFO"}' in after
    assert '"daphne.server": {"level": "DEBUG"}' in after
    assert [line for line, _ in remarks] == [3]
    assert "'headrace.server' now, which is configured here already" in remarks[0][1]


@pytest.mark.parametrize(
    ("channels", "daphne", "twice"),
    [
        ('{"handlers": ["a"]}', '{"handlers": ["a"]}', True),
        ('{"handlers": ["a"]}', '{"handlers": ["a"], "propagate": True}', True),
        ("COMMON", "COMMON", True),
        ('{"handlers": ["a"]}', '{"handlers": ["a"], "propagate": False}', False),
        ('{"handlers": ["a"]}', '{"level": "INFO"}', False),
        ('{"level": "INFO"}', '{"handlers": ["a"]}', False),
    ],
)
def test_loggers_that_are_one_below_the_other_now(channels, daphne, twice):
    source = f'LOGGING = {{"loggers": {{\n"daphne": {daphne},\n"django.channels": {channels}}}}}\n'
    after, remarks = moved(source)
    assert '"headrace.server": ' in after
    assert '"headrace": ' in after
    assert [line for line, text in remarks if "twice" in text] == [2] * twice


def test_a_key_that_is_no_logger():
    stays('x = {"daphne": {"port": 1}}\ny = {f"daphne": 2}\nz = {1: {"daphne": 3}}\n')


def test_quoted_annotations():
    becomes(
        """\
        import channels.layers

        def f(
            layer: "channels.layers.BaseChannelLayer | None",
            more: dict[str, "list[channels.layers.BaseChannelLayer]"] = {},
        ) -> "channels.layers.BaseChannelLayer": ...

        x: 'tuple[other.channels.layers, "channels.layers"]' = 1
        """.replace(', "channels.layers"', ""),
        """\
        import headrace.layers

        def f(
            layer: "headrace.layers.BaseChannelLayer | None",
            more: dict[str, "list[headrace.layers.BaseChannelLayer]"] = {},
        ) -> "headrace.layers.BaseChannelLayer": ...

        x: 'tuple[other.channels.layers]' = 1
        """,
    )


@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        ('"list[channels.layers.nothing]"', "no public name"),
        (r'"list[channels.layers.\x42aseChannelLayer]"', "escapes"),
    ],
)
def test_annotations_that_are_left_to_people(annotation, advice):
    stays(f"x: {annotation}\n", (1, advice))


def test_an_annotation_that_is_no_python():
    stays('x: "any of channels.layers"\n')


def test_requirements_of_a_package():
    setup = """\
    setup(
        install_requires=["channels", "channels[daphne]>=4", "daphne ~= 4.1", "channels_redis>=4"],
        keywords="channels like",
    )
    """
    requirement = "write headrace in its place"
    stays(setup, *[(2, requirement)] * 4, name="setup.py")
    stays(setup, name="views.py")
