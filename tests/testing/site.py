"""A small project: pages, static files, and consumers of both kinds that use the database."""

import asyncio
import threading

from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.urls import path

from headrace.auth import AuthMiddlewareStack
from headrace.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from headrace.routing import ProtocolTypeRouter, URLRouter
from headrace.security.websocket import AllowedHostsOriginValidator

PAGE = """<!doctype html><link rel="icon" href="data:,"><script src="/static/page.js"></script>
<p id="said"></p>"""


def page(request):
    return HttpResponse(PAGE)


def users(request):
    with transaction.atomic():
        if request.method == "POST":
            User.objects.create(username=request.body.decode())
        names = [*User.objects.order_by("id").values_list("username", flat=True)]
    return JsonResponse({"users": names})


class Members(AsyncJsonWebsocketConsumer):
    """Keeps a list of users: one more for each message, and everyone hears of it."""

    groups = ("members",)

    async def receive_json(self, content, **kwargs):
        await User.objects.acreate(username=content)
        await self.channel_layer.group_send("members", {"type": "members.changed"})

    async def members_changed(self, event):
        await self.send_json([user.username async for user in User.objects.order_by("id")])


class SyncMembers(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        with transaction.atomic():
            User.objects.create(username=text_data)
            names = User.objects.order_by("id").values_list("username", flat=True)
            self.send(",".join(names))


#: What the handlers of ``Stuck`` wait for.
release = threading.Event()


class Stuck(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content, **kwargs):
        match content:
            case "await":
                await asyncio.Event().wait()
            case "sleep":
                await self.send_json("sleeping")
                await asyncio.sleep(0.01)
                release.wait(30)
            case "stubborn":
                await self.send_json("here")
                while not release.is_set():
                    try:
                        await asyncio.sleep(0.05)
                    except asyncio.CancelledError:
                        continue
            case "fail":
                raise LookupError("on purpose")


urlpatterns = [path("", page), path("users/", users)]

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                URLRouter(
                    [
                        path("ws/members/", Members.as_asgi()),
                        path("ws/sync-members/", SyncMembers.as_asgi()),
                        path("ws/stuck/", Stuck.as_asgi()),
                    ]
                )
            )
        ),
    }
)
