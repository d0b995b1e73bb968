from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.test import TransactionTestCase

from .consumers import NoticeConsumer
from .models import Notice


class NoticeTests(TransactionTestCase):
    async def test_what_was_posted_before_comes_first(self):
        await database_sync_to_async(Notice.objects.create)(text="first")
        communicator = WebsocketCommunicator(NoticeConsumer.as_asgi(), "/ws/notices/")
        await communicator.connect()
        self.assertEqual(await communicator.receive_from(), "first")
        await communicator.send_to(text_data="second")
        self.assertEqual(await communicator.receive_from(), "kept")
        await communicator.disconnect()
        self.assertEqual(await database_sync_to_async(Notice.objects.count)(), 2)
