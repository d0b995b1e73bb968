"""Settings of Millpond, the demo site.

It runs as it stands on a machine without any other service: SQLite for the rows, the channel
layer in memory (``CHANNEL_LAYERS`` is unset: Headrace's default). The environment may change:

- ``DEMO_DATA_DIR``: where the database and the secret key live (``var`` beside this project)
- ``DEMO_HOSTS``: the names under which the site may be called, separated by commas
- ``DEMO_LAYER``: ``local``, or the address of a Redis, ``redis://…``
- ``DEMO_DEBUG``: ``1`` shows Django's own error pages
"""

import contextlib
import os
import tempfile
from pathlib import Path

from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("DEMO_DATA_DIR") or BASE_DIR / "var")
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)


def secret_key() -> str:
    """Return this installation's own key, made on the first run and readable by its user alone."""
    path = DATA_DIR / "secret-key"
    if not path.exists():
        # Workers begin at the same time: the key is there whole or not at all, and the first wins.
        with tempfile.NamedTemporaryFile("w", dir=DATA_DIR) as file:
            file.write(get_random_secret_key())
            file.flush()
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_text()


SECRET_KEY = secret_key()
DEBUG = os.environ.get("DEMO_DEBUG") == "1"
# Both Django and the WebSockets' AllowedHostsOriginValidator read this list.
ALLOWED_HOSTS = os.environ.get("DEMO_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "headrace",  # before staticfiles: it brings a runserver of its own
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "headrace.operations",
    "millpond",
    "live",
    "accounts",
    "arena",
    "chat",
    "danmaku",
    "documents",
    "polling",
    "quotes",
    "notifications",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "millpond.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "millpond.urls"
ASGI_APPLICATION = "millpond.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "millpond.context_processors.theme",
                "millpond.context_processors.applications",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        # Each thread keeps its connection: to open one costs more than most requests do. There
        # are few threads, and the same ones again: see ThreadPoolMiddleware in asgi.py.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            # Readers don't wait for the writer, and a writer takes the lock when its
            # transaction begins, so that two of them queue instead of failing half-way.
            # NORMAL doesn't wait for the disk at each commit: with this journal a power cut may
            # cost the last moment, and never the file.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 10,
        },
    }
}
SILENCED_SYSTEM_CHECKS = [
    "headrace.W006"
]  # CONN_MAX_AGE, where each request has a thread of its own
# What templates keep of a page that is the same for everyone: messages, comments, instruments.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "start"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
USE_I18N = True
TIME_ZONE = "UTC"  # the browser shows its own user's time
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_FINDERS = ["millpond.versions.Finder"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "millpond.versions.Storage"},
}
# Images of the chat. There is no MEDIA_URL: a view serves them, to those who may see them.
MEDIA_ROOT = DATA_DIR / "media"

HEADRACE = {
    # Log out, and every open page of that log-in hears of it.
    "CLOSE_ON_LOGOUT": True,
    # Django's pages. They compute, and wait for nothing: what more threads took of the interpreter,
    # the event loop would lack.
    "SYNC_THREADS": 3,
}

# In memory unless the environment says more; several workers of one server share the local layer.
LAYER = os.environ.get("DEMO_LAYER", "")
if LAYER == "local":
    CHANNEL_LAYERS = {"default": {"BACKEND": "headrace.layers.LocalChannelLayer"}}
elif LAYER:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "headrace.layers.redis.RedisChannelLayer",
            "CONFIG": {"hosts": [LAYER], "prefix": "millpond"},
        }
    }

# What the conversation allows.
CHAT_MESSAGE_LENGTH = 2000
CHAT_PAGE_SIZE = 40
# Messages of one connection: so many at once, then so many a second.
CHAT_BURST = 10
CHAT_PER_SECOND = 1
# Images: bytes of the file, pixels in it, images of one user in a minute. For how long staff may
# mute somebody. For how long a process that gives no sign of life still has its people.
CHAT_IMAGE_BYTES = 5_000_000
CHAT_IMAGE_PIXELS = 25_000_000
CHAT_IMAGES_PER_MINUTE = 10
CHAT_MUTE_MINUTES = 24 * 60
CHAT_LEASE_S = 3

# The market: seconds of a candle, how many are kept of each instrument, for how long a process has
# the market without a word, and for how many prices one user may wait.
QUOTES_CANDLE_S = 15
QUOTES_CANDLES = 240
QUOTES_LEASE_S = 3
QUOTES_ALERTS = 20

# The film: how long it is (see danmaku/film/draw.py), how long a comment may be; how many of them
# there are in a batch and for each second that is replayed; how often a batch goes out, and how
# many comments wait for it; comments of one connection: at once, then a second; the crowd.
DANMAKU_FILM_MS = 16_000
DANMAKU_LENGTH = 60
DANMAKU_SHOWN = 3
DANMAKU_REPLAYED = 12
DANMAKU_BATCH_S = 0.1
DANMAKU_WAITING = 2_000
DANMAKU_BURST = 5
DANMAKU_PER_SECOND = 1
DANMAKU_CROWD_S = 4
DANMAKU_CROWD_PER_SECOND = 1_000

# Documents: bytes of one, with what was deleted since its updates were folded last, and of one
# message; how often what was written is kept and told; how many updates are folded at once;
# messages of one connection: at once, then a second.
DOCUMENTS_BYTES = 512 * 1024
DOCUMENTS_UPDATE_BYTES = 256 * 1024
DOCUMENTS_BATCH_S = 0.1
DOCUMENTS_COMPACT_AFTER = 200
DOCUMENTS_BURST = 400
DOCUMENTS_PER_SECOND = 100

# The four ways: messages of the feed that are kept, two minutes of them; how long a long poll waits
# and a stream is silent; when a stream that broke comes again. Requests of an account in one
# process: at once, then a second; and what it may leave open.
POLLING_KEPT = 1_200
POLLING_WAIT_S = 15
POLLING_RETRY_MS = 1_000
POLLING_BURST = 100
POLLING_PER_SECOND = 50
POLLING_OPEN = 24
