"""The alias: other people's ``import channels`` gives Headrace's own modules."""

import importlib
import importlib.metadata
import importlib.util
import pickle
import subprocess
import sys
import textwrap
import threading
from unittest import mock

import pytest
from django.apps import apps
from django.conf import settings
from django.test import override_settings

import headrace
import headrace.layers
from headrace import as_channels
from headrace.exceptions import ConfigurationError


@pytest.fixture
def alias():
    as_channels.install()
    yield
    as_channels.uninstall()


def run(code, **options):
    """Run the code in an interpreter of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def real_channels(tmp_path):
    """Stands in for an installed Channels: a package of that name on the path."""
    package = tmp_path / "channels"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = 'real'\n")
    (package / "layers.py").write_text("class BaseChannelLayer: pass\n")
    return tmp_path


def test_nothing_happens_on_import():
    assert importlib.util.find_spec("channels") is None


def test_modules_are_the_same_objects(alias):
    import channels.generic.websocket
    import channels.layers
    from channels import testing as communicators

    assert channels.layers is headrace.layers
    assert channels.generic.websocket is importlib.import_module("headrace.generic.websocket")
    assert communicators is importlib.import_module("headrace.testing")


def test_names_are_the_same_objects(alias):
    from channels.exceptions import StopConsumer
    from channels.generic.websocket import AsyncWebsocketConsumer as Theirs

    from headrace.generic.websocket import AsyncWebsocketConsumer as Ours

    assert Theirs is Ours
    with pytest.raises(headrace.exceptions.StopConsumer):
        raise StopConsumer


def test_the_real_modules_keep_their_specification(alias):
    import channels.layers

    assert channels.layers.__name__ == "headrace.layers"
    assert channels.layers.__spec__.name == "headrace.layers"
    assert channels.layers.__spec__.loader is not None


def test_reload(alias):
    import channels
    import channels.codecs

    assert importlib.reload(channels.codecs) is headrace.codecs
    assert importlib.reload(channels) is channels
    assert channels.codecs is headrace.codecs


def test_submodules_are_imported_when_asked_for():
    assert run("""
        import sys
        from headrace import as_channels
        as_channels.install()
        import channels
        print("headrace.layers" in sys.modules, hasattr(channels, "layers"))
        import channels.layers
        print("headrace.layers" in sys.modules, hasattr(channels, "layers"))
    """) == ["False", "False", "True", "True"]


def test_import_from_many_threads_gives_one_module():
    assert run("""
        import importlib, sys, threading
        from headrace import as_channels
        as_channels.install()
        start = threading.Barrier(8)
        found = []
        def work(number):
            start.wait()
            prefix = "channels" if number % 2 else "headrace"
            found.append(importlib.import_module(prefix + ".exceptions").StopConsumer)
        threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(found), len(set(found)))
    """) == ["8", "1"]


def test_version_is_that_of_channels(alias):
    import channels

    assert channels is not headrace
    assert channels.__version__.startswith("4.3.")
    assert channels.DEFAULT_CHANNEL_LAYER == "default"


def test_no_distribution_is_made_up(alias):
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("channels")


@pytest.mark.parametrize(
    "name", ["channels.handler", "channels.db.nothing", "channels.layers.nothing", "channelsx"]
)
def test_what_headrace_does_not_have_is_not_found(alias, name):
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(name)
    assert caught.value.name == name


def test_pickles_know_one_name(alias):
    from channels.exceptions import ChannelFull

    assert b"channels.exc" not in pickle.dumps(ChannelFull)
    old = b"cchannels.exceptions\nChannelFull\n."
    assert pickle.loads(old) is ChannelFull is headrace.exceptions.ChannelFull


def test_patching_through_the_alias_patches_headrace(alias):
    with mock.patch("channels.layers.get_channel_layer") as patched:
        assert headrace.layers.get_channel_layer is patched
    assert headrace.layers.get_channel_layer is not patched


def test_channels_may_stay_an_installed_app(alias):
    others = [app for app in settings.INSTALLED_APPS if app != "headrace"]
    with override_settings(INSTALLED_APPS=["channels", *others]):
        config = apps.get_app_config("headrace")
        assert type(config).__name__ == "HeadraceConfig"
        assert apps.is_installed("headrace")


def test_a_layer_under_its_old_name(alias):
    old = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=old):
        layer = headrace.layers.get_channel_layer()
    assert type(layer) is headrace.layers.InMemoryChannelLayer


def test_install_twice_is_install_once(alias):
    finders = list(sys.meta_path)
    as_channels.install()
    assert sys.meta_path == finders


def test_uninstall():
    as_channels.install()
    import channels.layers

    as_channels.uninstall()
    assert not any(name.partition(".")[0] == "channels" for name in sys.modules)
    assert importlib.util.find_spec("channels") is None
    assert sys.modules["headrace.layers"] is channels.layers
    as_channels.uninstall()


def test_an_installed_channels_is_shadowed(real_channels):
    assert run(
        """
        from headrace import as_channels
        as_channels.install()
        import channels.layers
        print(channels.__version__, channels.layers.__name__)
        as_channels.uninstall()
        import channels.layers
        print(channels.__version__, channels.layers.__name__)
        """,
        cwd=real_channels,
    ) == [as_channels.CHANNELS_VERSION, "headrace.layers", "real", "channels.layers"]


def test_channels_that_was_imported_already(real_channels, monkeypatch):
    monkeypatch.syspath_prepend(real_channels)
    importlib.import_module("channels")
    monkeypatch.delitem(sys.modules, "channels", raising=False)
    real = importlib.import_module("channels")
    finders = list(sys.meta_path)
    try:
        with pytest.raises(ConfigurationError) as caught:
            as_channels.install()
    finally:
        del sys.modules["channels"]
    assert real.__file__ in str(caught.value)
    assert "headrace.as_channels.install()" in str(caught.value)
    assert sys.meta_path == finders


def test_a_namespace_package_that_was_imported_already(tmp_path, monkeypatch):
    (tmp_path / "channels").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("channels")
    try:
        with pytest.raises(ConfigurationError, match="channels"):
            as_channels.install()
    finally:
        del sys.modules["channels"]


def test_threads_see_the_alias(alias):
    found = []
    thread = threading.Thread(target=lambda: found.append(importlib.import_module("channels.db")))
    thread.start()
    thread.join()
    assert found == [importlib.import_module("headrace.db")]
