from channels.consumer import AsyncConsumer


class ThumbnailConsumer(AsyncConsumer):
    async def make(self, message):
        width, height = message["size"]
        scale = max(width, height) / 100
        await self.channel_layer.send(
            message["reply_to"],
            {"type": "thumbnail.made", "size": [int(width / scale), int(height / scale)]},
        )
