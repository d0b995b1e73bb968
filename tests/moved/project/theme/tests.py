from channels.sessions import SessionMiddlewareStack
from channels.testing import HttpCommunicator, WebsocketCommunicator
from django.conf import settings
from django.test import TransactionTestCase

from .consumers import ThemeConsumer, ThemePageConsumer


class ThemeTests(TransactionTestCase):
    async def page(self, method="GET", body=b"", key=None):
        headers = [(b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode())] if key else []
        application = SessionMiddlewareStack(ThemePageConsumer.as_asgi())
        return await HttpCommunicator(application, method, "/theme/", body, headers).get_response()

    async def test_what_a_socket_keeps_a_page_finds(self):
        self.assertEqual((await self.page())["body"], b"light")
        socket = WebsocketCommunicator(
            SessionMiddlewareStack(ThemeConsumer.as_asgi()), "/ws/theme/"
        )
        await socket.connect()
        await socket.send_json_to({"theme": "dark"})
        key = (await socket.receive_json_from())["key"]
        await socket.disconnect()
        self.assertEqual((await self.page(key=key))["body"], b"dark")

    async def test_a_page_sets_the_cookie(self):
        response = await self.page("POST", b"sepia")
        cookies = [value.decode() for name, value in response["headers"] if name == b"Set-Cookie"]
        self.assertEqual(len(cookies), 1)
        name, _, key = cookies[0].partition(";")[0].partition("=")
        self.assertEqual(name, settings.SESSION_COOKIE_NAME)
        self.assertEqual((await self.page(key=key))["body"], b"sepia")
