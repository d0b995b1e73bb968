"""Requirements and commands in files that aren't Python."""

from pathlib import PurePath

import pytest

from headrace.migrating.others import concerns, remarks


def said(name, text):
    return [(remark.line, remark.text) for remark in remarks(PurePath(name), text)]


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "dev-requirements.in",
        "requirements/base.txt",
        "constraints.txt",
        "pyproject.toml",
        "setup.cfg",
        "Pipfile",
        "environment.yml",
        "Dockerfile",
        "web.Dockerfile",
        "Dockerfile.prod",
        "Procfile",
        "compose.yaml",
        "docker-compose.yml",
        "start.sh",
        "daphne.service",
        "supervisord.conf",
        "Makefile",
        "tox.ini",
    ],
)
def test_files_that_are_looked_at(name):
    assert concerns(PurePath(name))


@pytest.mark.parametrize("name", ["README.md", "poetry.lock", "page.html", "notes.txt", "a.js"])
def test_files_that_are_not(name):
    assert not concerns(PurePath(name))


def test_requirements():
    lines = """\
# channels==1
Channels==4.3.2
channels[daphne]>=4  # server
daphne ; python_version > "3.8"
channels-redis~=4.2
channels_redis
django-channels-extra==1
channels-presence
""".replace("\n", "\r\n")
    assert said("requirements/base.txt", lines) == [
        (2, "Channels: require headrace in its place"),
        (3, "channels[daphne]: require headrace in its place"),
        (4, "daphne: headrace has a server, so nothing comes in its place"),
        (5, "channels-redis: require headrace[redis] in its place"),
        (6, "channels_redis: require headrace[redis] in its place"),
    ]


def test_requirements_in_toml():
    assert said("pyproject.toml", 'dependencies = ["channels>=4", "daphne", "x"]\n') == [
        (1, "channels: require headrace in its place"),
        (1, "daphne: headrace has a server, so nothing comes in its place"),
    ]
    assert said("Pipfile", 'channels = "*"\n[tool.mypy]\nmodule = "channels.*"\n') == [
        (1, "channels: require headrace in its place")
    ]


def test_packages_that_are_installed():
    assert said("Dockerfile", "RUN pip install --no-cache channels daphne==4.2 gunicorn\n") == [
        (1, "channels: require headrace in its place"),
        (1, "daphne: headrace has a server, so nothing comes in its place"),
    ]


@pytest.mark.parametrize(
    ("name", "line", "suggestion"),
    [
        ("Procfile", "web: daphne -p $PORT a.asgi:app", "web: headrace serve -p $PORT a.asgi:app"),
        ("Procfile", "web: daphne a.asgi:application", "web: headrace serve a.asgi:application"),
        (
            "start.sh",
            "exec /venv/bin/daphne -b 0.0.0.0 a.asgi:application",
            "exec /venv/bin/headrace serve -b 0.0.0.0 a.asgi:application",
        ),
        (
            "compose.yml",
            "  command: python -m daphne -b 0 a.asgi:application",
            "command: python -m headrace serve -b 0 a.asgi:application",
        ),
        (
            "Dockerfile",
            'CMD ["daphne", "-b", "0.0.0.0", "a.asgi:application"]',
            'CMD ["headrace", "serve", "-b", "0.0.0.0", "a.asgi:application"]',
        ),
        (
            "Dockerfile",
            "CMD ['/venv/bin/daphne', 'a.asgi:application']",
            "CMD ['/venv/bin/headrace', 'serve', 'a.asgi:application']",
        ),
    ],
)
def test_commands(name, line, suggestion):
    assert said(name, f"first\n{line}\n") == [(2, f"Daphne is started here: {suggestion}")]


def test_a_command_over_several_lines():
    lines = "command:\n  - daphne\n  - -b\n"
    assert said("deployment.yaml", lines) == [
        (2, "Daphne is started here: two items, headrace and serve")
    ]
    assert [text for _, text in said("environment.yml", lines)] == [
        "daphne: headrace has a server, so nothing comes in its place"
    ]


def test_tls():
    ((_, text),) = said("start.sh", "daphne -e ssl:443:privateKey=key.pem a.asgi:application\n")
    assert "speaks no TLS" in text


def test_what_only_mentions_daphne():
    assert said("compose.yml", "  daphne:\n    image: daphne\n    # daphne -b 0 a:b\n") == []
    assert said("setup.cfg", "[daphne]\n") == []
