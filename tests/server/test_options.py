"""One model for flags, environment and the table: the same settings, and errors that say where."""

import itertools
import tomllib

import pytest

from headrace.cli import main, parser
from headrace.exceptions import ConfigurationError
from headrace.server import option as room
from headrace.server.config import Config
from headrace.server.option import TRUTH, Option
from headrace.server.options import OPTIONS
from headrace.server.outbox import SlowClientPolicy
from headrace.server.settings import resolve

from .test_cli import process_as_it_was  # noqa: F401 - for every test here, too

ALL = [option for group in OPTIONS.values() for option in group]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table(folder):
    def write(text, name="pyproject.toml"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[project]\nname = 'x'\n\n[tool.headrace]\n{text}\n")

    return write


def said(*flags, **environment):
    environment = {f"HEADRACE_{name.upper()}": value for name, value in environment.items()}
    return resolve(parser().parse_args(["serve", *flags]), environment)


def mistake(*flags, **environment):
    with pytest.raises(ConfigurationError) as caught:
        said(*flags, **environment)
    return str(caught.value)


# Three places


def test_where_nobody_says_anything_the_defaults_of_the_configuration_hold():
    nobody = said()
    assert nobody.config({}) == Config(extensions=nobody.config({}).extensions)
    assert not any(nobody.given(option.name) for option in ALL)


def test_a_flag_beats_the_environment_and_that_the_table(table):
    table("port = 1\nbacklog = 2\nkeep-alive = 3")
    found = said("--port", "10", port="20", backlog="30")
    assert (found["port"], found["backlog"], found["keep-alive"]) == (10, 30, 3)
    assert found.where("port") == "--port"
    assert found.where("backlog") == "HEADRACE_BACKLOG in the environment"
    assert found.where("keep-alive") == "pyproject.toml: keep-alive of [tool.headrace]"
    assert found.where("uds") == "--uds"


def test_what_is_said_is_in_the_configuration():
    config = said("--head-timeout", "7", max_message_bytes="8").config({"port": 9})
    assert (config.http.head_s, config.websocket.message_bytes, config.port) == (7, 8, 9)
    # What stands beside it is as it was.
    assert config.http.keep_alive_s == Config().http.keep_alive_s


def test_the_table_is_that_of_the_folder_to_import_from(table, folder):
    table("backlog = 1")
    table("backlog = 2", "site/pyproject.toml")
    assert said()["backlog"] == 1
    assert said("--app-dir", "site")["backlog"] == 2
    assert said(app_dir="site")["backlog"] == 2
    (folder / "site" / "pyproject.toml").write_text("[tool.other]\n")
    assert said("--app-dir", "site")["backlog"] == 1


def test_no_table_is_no_mistake(folder):
    (folder / "pyproject.toml").write_text("tool = 3\n")
    assert not said().given("port")


@pytest.mark.parametrize(
    ("flags", "variable", "line", "name", "value"),
    [
        (["--port", "0"], {"port": "0"}, "port = 0", "port", 0),
        (["--head-timeout", "2.5"], {"head_timeout": "2.5"}, "head-timeout = 2.5", None, 2.5),
        (["--ping-interval", "-1"], {"ping_interval": "-1"}, "ping-interval = -1", None, 0),
        (["--no-compression"], {"compression": "off"}, "compression = false", None, False),
        (["--compression"], {"compression": "1"}, "compression = true", None, True),
        (
            ["--no-compression"],
            {"no_compression": "yes"},
            "no-compression = true",
            "compression",
            False,
        ),
        (
            ["--compression"],
            {"no_compression": "no"},
            "no-compression = false",
            "compression",
            True,
        ),
        (["--no-server-name"], {"no_server_name": "1"}, "no-server-name = true", "server-name", ""),
        (["--no-access-log"], {"access_log": "false"}, "access-log = false", None, False),
        (["--access-log", "-"], {"access_log": "-"}, "access-log = '-'", None, "-"),
        (["--uds-mode", "660"], {"uds_mode": "660"}, "uds-mode = '660'", None, 0o660),
        (["--max-body-bytes", "0"], {"max_body_bytes": "0"}, "max_body_bytes = 0", None, 0),
        (
            ["--slow-client", "latest-only"],
            {"slow_client": "latest-only"},
            "slow-client = 'latest-only'",
            None,
            SlowClientPolicy.LATEST_ONLY,
        ),
        (["-v", "2"], {"verbosity": "2"}, "verbosity = 2", "verbosity", 2),
        (
            ["-e", "tcp:1", "-e", "tcp:2"],
            {"endpoint": "tcp:1, tcp:2"},
            "endpoint = ['tcp:1', 'tcp:2']",
            "endpoint",
            ("tcp:1", "tcp:2"),
        ),
        (
            ["--trusted-proxies", "10.0.0.0/8,::1"],
            {"trusted_proxies": "10.0.0.0/8, ::1"},
            "trusted-proxies = ['10.0.0.0/8', '::1']",
            None,
            ("10.0.0.0/8", "::1"),
        ),
        (
            ["--ssl-certfile", "x"],
            {"ssl_certfile": "x"},
            "ssl-certfile = 'x'",
            "tls-certificate",
            "x",
        ),
        (
            ["--ssl-cert-reqs", "2"],
            {"ssl_cert_reqs": "2"},
            "ssl-cert-reqs = 2",
            "tls-client-certificates",
            "required",
        ),
    ],
)
def test_three_ways_to_say_the_same(table, flags, variable, line, name, value):
    name = name or flags[0].removeprefix("--no-").removeprefix("--")
    assert said(*flags)[name] == value
    assert said(**variable)[name] == value
    table(line)
    assert said()[name] == value
    assert type(said()[name]) is type(said(*flags)[name])


def test_what_is_not_negated_by_a_negation_is_as_it_was():
    assert not said(no_server_name="off").given("server-name")


def test_an_empty_variable_is_one_that_is_not_there():
    assert not said(port="", max_body_bytes="").given("port")


def test_the_application_may_be_named_in_each_place(table):
    assert said("a:b")["application"] == "a:b"
    assert said(application="c:d")["application"] == "c:d"
    table("application = 'e:f'")
    assert said()["application"] == "e:f"
    assert said("a:b", application="c:d")["application"] == "a:b"


# Mistakes


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("prot = 1", "prot of [tool.headrace]: there is no such setting; did you mean port?"),
        ("max-body-byte = 1", "did you mean max-body-bytes"),
        ("colour = 1", "`headrace serve --print-config` lists them all"),
        ("port = 'http'", "port of [tool.headrace]: must be a whole number, not 'http'"),
        ("port = true", "must be a whole number, not True"),
        ("port = 1.5", "must be a whole number, not 1.5"),
        ("port = 70000", "port must be from 0 to 65535, not 70000"),
        ("head-timeout = 'nan'", "must be a number of seconds, 0 or more, not 'nan'"),
        ("head-timeout = nan", "must be a number of seconds, 0 or more, not nan"),
        ("head-timeout = true", "must be a number of seconds, 0 or more, not True"),
        ("compression = 1.0", "must be true or false, not 1.0"),
        ("compression = 'perhaps'", "must be true or false, not 'perhaps'"),
        ("no-compression = 'perhaps'", "must be true or false, not 'perhaps'"),
        ("slow-client = 'x'", "must be one of close, drop-oldest, latest-only, not 'x'"),
        ("verbosity = true", "must be one of 0, 1, 2, 3, not True"),
        ("uds-mode = 660", 'must be text of octal digits, as "660", not 660'),
        ("endpoint = [1]", "must be text, not 1"),
        ("endpoint = 1", "must be text, or a list of such, not 1"),
        ("trusted-proxies = [1]", "must be text with commas between, or a list of text, not [1]"),
        ("bind = 1", "must be text, not 1"),
        ("shutdown-timeout = 0", "shutdown_timeout_s must be more than 0, not 0.0"),
        ("tls-password = 12345", "tls-password of [tool.headrace]: must be text, not what was"),
        ("port = 1\nssl-ciphers = 'x'\ntls-ciphers = 'y'", "ssl-ciphers of [tool.headrace] says"),
        ("max_headers = 5\nmax-headers = 6", "says it already: leave one of them out"),
        ("compression = true\nno-compression = true", "says it already: leave one of them out"),
        ("port = ", "pyproject.toml can't be read: Invalid value"),
        ("port = 1\nport = 2", "pyproject.toml can't be read: "),
    ],
)
def test_a_mistake_in_the_table_names_it(table, line, says):
    table(line)
    message = mistake()
    assert message.startswith("pyproject.toml")
    assert says in message


def test_a_table_that_is_none(folder):
    (folder / "pyproject.toml").write_text("[tool]\nheadrace = 3\n")
    assert "[tool.headrace] must be a table, not 3" in mistake()


def test_a_table_that_can_not_be_read(folder):
    (folder / "pyproject.toml").mkdir()
    assert "pyproject.toml can't be read: " in mistake()


def test_a_mistake_in_the_environment_names_the_variable():
    assert mistake(port="http") == (
        "HEADRACE_PORT in the environment: must be a whole number, not 'http'"
    )
    assert mistake(prot="1") == (
        "HEADRACE_PROT in the environment: there is no such setting; did you mean HEADRACE_PORT?"
    )
    assert "HEADRACE_MAX_BODY_BYTES" in mistake(max_body_byte="1")
    assert mistake(shutdown_timeout="0") == (
        "HEADRACE_SHUTDOWN_TIMEOUT in the environment: shutdown_timeout_s must be more than 0, "
        "not 0.0"
    )
    assert "secret" not in mistake(ssl_keyfile_password="secret", tls_password="secret")


def test_a_variable_that_resembles_nothing_may_be_the_applications(capsys, monkeypatch):
    found = said(favourite_colour="blue")
    [warning] = found.warnings
    assert "HEADRACE_FAVOURITE_COLOUR in the environment is no setting of the server" in warning
    monkeypatch.setenv("HEADRACE_FAVOURITE_COLOUR", "blue")
    with pytest.raises(SystemExit):
        main(["serve", "no.such:app"])
    assert "HEADRACE_FAVOURITE_COLOUR" in capsys.readouterr().err


def test_what_others_mean_is_none_of_ours():
    found = said(default_layer="local", pure="1")
    assert found.warnings == []
    # Of a service of that name Kubernetes tells every container in its namespace.
    found = said(
        port="tcp://10.0.0.1:8000",
        service_host="10.0.0.1",
        service_port="8000",
        service_port_http="8000",
        port_8000_tcp="tcp://10.0.0.1:8000",
        port_8000_tcp_addr="10.0.0.1",
    )
    assert found.warnings == []
    assert not found.given("port")


def test_a_mistake_in_a_flag_that_the_configuration_finds():
    assert mistake("--root-path", "x").startswith("--root-path: root_path must begin with '/'")


# Showing them


def test_the_settings_as_a_table(capsys, table, monkeypatch):
    table("application = 'mysite.asgi'\nmax-body-bytes = 1000")
    monkeypatch.setenv("HEADRACE_TLS_PASSWORD", "open sesame")
    monkeypatch.setenv("HEADRACE_TLS_CERTIFICATE", "x.pem")
    monkeypatch.setenv("HEADRACE_SERVER_NAME", 'a "name"\\')
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "--print-config", "--no-compression", "-e", "tcp:1", "--uds-mode", "660"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "open sesame" not in printed
    found = tomllib.loads(printed)["tool"]["headrace"]
    assert found["application"] == "mysite.asgi"
    assert found["max-body-bytes"] == 1000
    assert found["compression"] is False
    assert found["endpoint"] == ["tcp:1"]
    assert found["server-name"] == 'a "name"\\'
    assert found["uds-mode"] == "660"
    assert found["slow-client"] == "close"
    lines = {line.split(" = ")[0]: line for line in printed.splitlines() if " =" in line}
    assert lines["max-body-bytes"].endswith("# pyproject.toml: max-body-bytes of [tool.headrace]")
    assert lines["server-name"].endswith("# HEADRACE_SERVER_NAME in the environment")
    assert lines["compression"].endswith("# --no-compression")
    assert lines["backlog"].endswith("# default")
    assert lines["# tls-password"].startswith("# tls-password = (not shown)")
    # It listens at the endpoint alone.
    assert "# port =" in printed


def test_without_an_application_there_is_a_table_too(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "--print-config"])
    assert exit_.value.code == 0
    assert tomllib.loads(capsys.readouterr().out)["tool"]["headrace"]["port"] == 8000


def test_a_printed_table_says_the_same_again(table, folder):
    first = said(
        "--no-access-log", "-e", "tcp:1", "--slow-client", "drop-oldest", "--no-server-name"
    )
    (folder / "pyproject.toml").write_text(first.as_toml())
    second = said()
    for option in ALL:
        assert second[option.name] == first[option.name], option.name
    assert second.config({}) == first.config({})
    assert not second.given("port")


def test_the_help_tells_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    written = " ".join(capsys.readouterr().out.split())
    assert "0: any free one (default: 8000)" in written
    assert "(default: %(asctime)s %(levelname)s %(name)s %(message)s)" in written
    assert "[tool.headrace]" in written


def test_an_access_log_without_a_value_leaves_the_application_its_name(table, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--print-config", "--access-log", "a.b:c"])
    found = tomllib.loads(capsys.readouterr().out)["tool"]["headrace"]
    assert (found["application"], found["access-log"]) == ("a.b:c", "")
    table("application = 'x:y'")
    with pytest.raises(SystemExit):
        main(["serve", "--print-config", "--access-log", "access.log"])
    found = tomllib.loads(capsys.readouterr().out)["tool"]["headrace"]
    assert (found["application"], found["access-log"]) == ("x:y", "access.log")


# The table of options itself


def test_every_name_is_one_settings():
    keys = [key for option in ALL for key in option.keys]
    assert len(keys) == len(set(keys))
    assert not {key for key in keys if key.startswith("no-")}
    for option in ALL:
        assert option.kind is not TRUTH or not option.repeatable
    short = list(itertools.chain.from_iterable(option.flags for option in ALL))
    assert len(short) == len(set(short))


def test_a_row_knows_its_default_by_where_it_goes():
    assert Option("x", room.TIME, "", "http.head_s").default == Config().http.head_s
    assert Option("x", room.TEXT, "").default is None
    assert repr(Option("x", room.TEXT, "").without) == "nothing"
