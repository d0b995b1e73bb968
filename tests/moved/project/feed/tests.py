from channels.layers import get_channel_layer
from channels.testing import HttpCommunicator
from django.test import SimpleTestCase

from .consumers import FeedConsumer


class FeedTests(SimpleTestCase):
    async def test_items_come_while_the_response_is_open(self):
        communicator = HttpCommunicator(FeedConsumer.as_asgi(), "GET", "/feed/")
        await communicator.send_input({"type": "http.request", "body": b""})
        start = await communicator.receive_output()
        self.assertEqual(start["status"], 200)
        self.assertEqual((await communicator.receive_output())["body"], b": welcome\n\n")
        layer = get_channel_layer()
        await layer.group_send("feed", {"type": "feed.item", "text": "one"})
        await layer.group_send("feed", {"type": "feed.item", "text": "two", "last": True})
        self.assertEqual((await communicator.receive_output())["body"], b"data: one\n\n")
        self.assertEqual((await communicator.receive_output())["body"], b"data: two\n\n")
        self.assertFalse((await communicator.receive_output())["more_body"])
        await communicator.wait()

    async def test_other_methods(self):
        response = await HttpCommunicator(FeedConsumer.as_asgi(), "POST", "/feed/").get_response()
        self.assertEqual(response["status"], 405)
        self.assertIn((b"Allow", b"GET"), response["headers"])
