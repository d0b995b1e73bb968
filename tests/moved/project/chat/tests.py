from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.test import TestCase

from chat.routing import websocket_urlpatterns

application = URLRouter(websocket_urlpatterns)


class ChatTests(TestCase):
    async def check(self, path):
        first = WebsocketCommunicator(application, path)
        second = WebsocketCommunicator(application, path)
        for communicator in (first, second):
            connected, subprotocol = await communicator.connect()
            self.assertTrue(connected)
            self.assertIsNone(subprotocol)
        await first.send_json_to({"message": "hello"})
        for communicator in (first, second):
            self.assertEqual(await communicator.receive_json_from(), {"message": "hello"})
            self.assertTrue(await communicator.receive_nothing())
            await communicator.disconnect()

    async def test_everybody_in_a_room_hears(self):
        await self.check("/ws/chat/lobby/")

    async def test_everybody_in_a_room_hears_in_threads(self):
        await self.check("/ws/chat-in-threads/lobby/")
