from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import TransactionTestCase

from .consumers import MemberConsumer


class MemberTests(TransactionTestCase):
    def communicator(self, key=None):
        headers = [(b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode())] if key else []
        application = AuthMiddlewareStack(MemberConsumer.as_asgi())
        return WebsocketCommunicator(application, "/ws/members/", headers)

    async def test_log_in_come_again_log_out(self):
        await database_sync_to_async(get_user_model().objects.create_user)("ada", password="engine")
        socket = self.communicator()
        await socket.connect()
        self.assertEqual((await socket.receive_json_from())["user"], "")
        await socket.send_json_to({"do": "log in", "name": "ada", "password": "wrong"})
        self.assertEqual(await socket.receive_json_from(), {"error": "wrong name or password"})
        await socket.send_json_to({"do": "log in", "name": "ada", "password": "engine"})
        told = await socket.receive_json_from()
        self.assertEqual(told["user"], "ada")
        await socket.disconnect()

        again = self.communicator(told["key"])
        await again.connect()
        self.assertEqual((await again.receive_json_from())["user"], "ada")
        await again.send_json_to({"do": "log out"})
        self.assertEqual((await again.receive_json_from())["user"], "")
        await again.disconnect()

        last = self.communicator(told["key"])
        await last.connect()
        self.assertEqual((await last.receive_json_from())["user"], "")
        await last.disconnect()
