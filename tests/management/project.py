"""A small Django project on disk, and its ``manage.py`` as a process."""

import asyncio
import contextlib
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 45  # two processes start, on a machine that may have other work

FILES = {
    "manage.py": """
        import sys
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
    """,
    "settings.py": """
        import os
        from pathlib import Path
        SECRET_KEY = "only for tests"
        DEBUG = True
        ALLOWED_HOSTS = ["*"]
        INSTALLED_APPS = ["headrace", "django.contrib.staticfiles"]
        ROOT_URLCONF = "urls"
        ASGI_APPLICATION = "asgi.application"
        WSGI_APPLICATION = None
        STATIC_URL = "static/"
        STATICFILES_DIRS = [Path(__file__).parent / "assets"]
        DATABASE = Path(__file__).parent / "db.sqlite3"
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}}
        LOGGING = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"all": {"class": "logging.StreamHandler"}},
            "loggers": {"django.utils.autoreload": {"handlers": ["all"], "level": "DEBUG"}},
        }
        if "LAYER" in os.environ:
            CHANNEL_LAYERS = {"default": {"BACKEND": os.environ["LAYER"]}}
    """,
    "urls.py": """
        from django.http import HttpResponse
        from django.urls import path
        urlpatterns = [path("", lambda request: HttpResponse(type(request).__name__))]
    """,
    "asgi.py": """
        from django.core.asgi import get_asgi_application
        from django.urls import path
        from headrace.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
        from consumers import Answering, Working
        application = ProtocolTypeRouter({
            "http": get_asgi_application(),
            "websocket": URLRouter([path("ws/", Answering.as_asgi())]),
            "channel": ChannelNameRouter({"jobs": Working.as_asgi()}),
        })
    """,
    "consumers.py": """
        from headrace.consumer import AsyncConsumer
        from headrace.generic.websocket import AsyncWebsocketConsumer

        class Answering(AsyncWebsocketConsumer):
            async def receive(self, text_data=None, bytes_data=None):
                await self.send("first")

        class Working(AsyncConsumer):
            async def job_do(self, event):
                await self.channel_layer.send("news", {"type": "begun"})
                await self.channel_layer.receive("gate")
                await self.channel_layer.send("news", {"type": "done", "job": event["job"]})
    """,
    "assets/page.css": "body { color: teal }",
}


class Project:
    """A folder with a project in it."""

    def __init__(self, folder):
        self.folder = folder
        for name in FILES:
            self.write(name, FILES[name])

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        margin = " " * 8
        lines = [line.removeprefix(margin) for line in text.strip("\n").splitlines()]
        path.write_text("\n".join(lines) + "\n")

    def original(self, name):
        return FILES[name]

    def change(self, name, old, new):
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    @contextlib.asynccontextmanager
    async def manage(self, *arguments, **environment):
        """Run ``manage.py``; whatever is left of it at the end is killed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-u",
            "manage.py",
            *arguments,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",  # what it writes is seen as it comes
                "DJANGO_SETTINGS_MODULE": "settings",
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONWARNINGS": "default",
                **environment,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        running = Running(process, self.folder)
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                # The autoreloader's child, too.
                os.killpg(process.pid, 9)
            await process.wait()
            await running.reader


class Running:
    """A process, and what it writes."""

    def __init__(self, process, folder):
        self.process = process
        self.folder = folder
        self.lines = []
        self._news = asyncio.Event()
        self._seen = 0
        self.reader = asyncio.create_task(self._read())

    async def _read(self):
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip("\n"))
            self._news.set()
        self._news.set()

    @property
    def text(self):
        return "\n".join(self.lines)

    async def says(self, pattern):
        """Wait for a line that was not asked for before; return its match."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                while self._seen < len(self.lines):
                    self._seen += 1
                    if match := re.search(pattern, self.lines[self._seen - 1]):
                        return match
                assert not self.reader.done(), f"no {pattern!r} in:\n{self.text}"
                self._news.clear()
                await self._news.wait()

    async def watches(self, name, times=1):
        """Wait until the autoreloader has looked at a file, in so many processes by now."""
        pattern = re.compile(rf"File {re.escape(str(self.folder))}/{name} first seen")
        async with asyncio.timeout(TIMEOUT_S):
            while len(list(filter(pattern.match, self.lines))) < times:
                assert not self.reader.done(), self.text
                self._news.clear()
                await self._news.wait()

    async def listens(self):
        """Wait for the server; return its address."""
        match = await self.says(r"^Starting .*development server at http://(\S+):(\d+)/")
        return match[1].strip("[]"), int(match[2])

    async def ends(self):
        """Wait for the end; return the status."""
        async with asyncio.timeout(TIMEOUT_S):
            await self.reader
            status = await self.process.wait()
        for noise in ("never retrieved", "Task was destroyed", "ResourceWarning"):
            assert noise not in self.text, self.text
        return status
