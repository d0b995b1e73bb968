import pytest

from headrace.exceptions import ConfigurationError
from headrace.server.config import Config, Lifespan
from headrace.server.outbox import SlowClientPolicy


def test_the_defaults_hold_together():
    config = Config()
    assert config.lifespan is Lifespan.AUTO
    assert config.slow_client is SlowClientPolicy.CLOSE
    # A stop can wait for a close handshake that nobody answers.
    assert config.close_timeout_s < config.shutdown_timeout_s


def test_choices_may_be_written_as_text():
    config = Config(lifespan="off", slow_client="latest-only")
    assert config.lifespan is Lifespan.OFF
    assert config.slow_client is SlowClientPolicy.LATEST_ONLY


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"port": -1}, "port must be from 0 to 65535, not -1"),
        ({"port": 65536}, "port must be from 0 to 65535"),
        ({"backlog": 0}, "backlog must be at least 1"),
        ({"outbox_limit_bytes": 0}, "outbox_limit_bytes must be at least 1"),
        ({"inbox_limit": 0}, "inbox_limit must be at least 1"),
        ({"accept_timeout_s": -1}, "accept_timeout_s must be 0"),
        ({"http_timeout_s": -1}, "http_timeout_s must be 0"),
        ({"websocket_timeout_s": -1}, "websocket_timeout_s must be 0"),
        ({"application_close_timeout_s": -1}, "application_close_timeout_s must be 0"),
        ({"uds": "/x", "uds_mode": 0o1000}, "uds_mode must be from 0o0 to 0o777, not 0o1000"),
        ({"close_timeout_s": -1}, "close_timeout_s must be more than 0"),
        ({"write_timeout_s": 0}, "write_timeout_s must be more than 0"),
        ({"shutdown_timeout_s": 0}, "shutdown_timeout_s must be more than 0"),
        ({"ping_interval_s": -1}, "ping_interval_s must be 0"),
        ({"ping_timeout_s": -1}, "ping_timeout_s must be 0"),
        ({"root_path": "app"}, "root_path must begin with '/'"),
        ({"root_path": "/app/"}, "not end with it"),
        ({"server_header": "a\r\nb: c"}, "server_header must be printable ASCII"),
        ({"server_header": "caf\u00e9"}, "server_header must be printable ASCII"),
        ({"lifespan": "maybe"}, "lifespan must be one of auto, on, off, not 'maybe'"),
        ({"slow_client": "drop"}, "slow_client must be one of close, drop-oldest, latest-only"),
    ],
)
def test_what_can_not_be_says_why(setting, says):
    with pytest.raises(ConfigurationError) as caught:
        Config(**setting)
    assert says in str(caught.value)
