import asyncio

from channels.layers import get_channel_layer
from channels.routing import get_default_application
from channels.worker import Worker
from django.test import SimpleTestCase


class ThumbnailTests(SimpleTestCase):
    async def test_the_worker_answers(self):
        layer = get_channel_layer()
        worker = Worker(get_default_application(), ["thumbnails"], layer)
        working = asyncio.ensure_future(worker.handle())
        try:
            me = await layer.new_channel()
            for size, small in [([400, 200], [100, 50]), ([50, 200], [25, 100])]:
                await layer.send("thumbnails", {"type": "make", "size": size, "reply_to": me})
                answer = await asyncio.wait_for(layer.receive(me), 5)
                self.assertEqual(answer, {"type": "thumbnail.made", "size": small})
        finally:
            working.cancel()
            await asyncio.wait([working])
