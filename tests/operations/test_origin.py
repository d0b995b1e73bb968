"""Which pages may open the operations socket: those of the very site."""

import pytest

from headrace.operations.origin import SameOriginValidator
from headrace.security.websocket import WebsocketDenier


async def application(scope, receive, send):
    """Be let through to."""


def allowed(origin, *, host="example.com", scheme="ws", more=()):
    headers = [(b"host", host.encode("latin-1"))] if host is not None else []
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    scope = {"type": "websocket", "path": "/", "scheme": scheme, "headers": [*headers, *more]}
    reached, *_ = SameOriginValidator(application).enter(scope, None, None)
    assert reached is application or isinstance(reached, WebsocketDenier)
    return reached is application


@pytest.fixture(autouse=True)
def hosts(settings):
    settings.ALLOWED_HOSTS = ["*"]
    return settings


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://example.com", "example.com"),
        ("https://example.com", "example.com"),  # a proxy ends TLS
        ("http://example.com:8000", "example.com:8000"),
        ("http://example.com", "example.com:80"),
        ("http://EXAMPLE.com", "example.COM"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_page_of_this_site_is_let_in(origin, host):
    assert allowed(origin, host=host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "example.com"),
        ("http://sub.example.com", "example.com"),
        ("http://example.com:8001", "example.com:8000"),
        ("null", "example.com"),
        (None, "example.com"),
        ("http://example.com", None),
        ("http://example.com", "example.com:port"),
        ("http://example.com", "evil.example@example.com"),
        ("http://example.com", "example.com/path"),
        ("http://example.com", ""),
        ("http://example.com", "ex\u00e4mple.com"),
    ],
)
def test_any_other_is_not_whatever_the_allowed_hosts_are(origin, host):
    assert not allowed(origin, host=host)


def test_a_page_without_encryption_is_not_let_in_where_there_is_some():
    assert allowed("https://example.com", scheme="wss")
    assert not allowed("http://example.com", scheme="wss")


def test_a_host_that_is_not_of_the_allowed_ones_is_not_either(hosts):
    hosts.ALLOWED_HOSTS = ["example.com", "[::1]"]
    assert allowed("http://example.com")
    assert allowed("http://[::1]:1", host="[::1]:1")
    assert not allowed("http://rebound.example", host="rebound.example")


def test_in_development_the_local_hosts_are_allowed(hosts):
    hosts.ALLOWED_HOSTS, hosts.DEBUG = [], True
    assert allowed("http://localhost:8000", host="localhost:8000")
    assert not allowed("http://example.com")


def test_behind_a_proxy_that_renames_the_host_two_settings_help(hosts):
    forwarded = [(b"x-forwarded-host", b"example.com")]
    assert not allowed("https://example.com", host="inner:8000", more=forwarded)
    hosts.USE_X_FORWARDED_HOST = True
    assert allowed("https://example.com", host="inner:8000", more=forwarded)
    assert not allowed("https://example.com", host="inner:8000", more=forwarded * 2)
    hosts.USE_X_FORWARDED_HOST = False
    hosts.CSRF_TRUSTED_ORIGINS = ["https://example.com", "https://*.example.org"]
    assert allowed("https://example.com", host="inner:8000")
    assert allowed("https://www.example.org", host="inner:8000")
    assert not allowed("http://www.example.org", host="inner:8000")
