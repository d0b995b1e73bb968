from channels.generic.http import AsyncHttpConsumer


class FeedConsumer(AsyncHttpConsumer):
    async def handle(self, body):
        if self.scope["method"] != "GET":
            await self.send_response(405, b"only GET", headers=[(b"Allow", b"GET")])
            return
        self.mailbox = await self.channel_layer.new_channel()
        await self.channel_layer.group_add("feed", self.mailbox)
        await self.send_headers(headers=[(b"Content-Type", b"text/event-stream")])
        await self.send_body(b": welcome\n\n", more_body=True)
        last = False
        while not last:
            event = await self.channel_layer.receive(self.mailbox)
            await self.send_body(f"data: {event['text']}\n\n".encode(), more_body=True)
            last = event.get("last")
        await self.send_body(b"")

    async def disconnect(self):
        if hasattr(self, "mailbox"):
            await self.channel_layer.group_discard("feed", self.mailbox)
