from channels.db import database_sync_to_async
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer


class ThemeConsumer(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        self.scope["session"]["theme"] = content["theme"]
        await database_sync_to_async(self.scope["session"].save)()
        await self.send_json({"key": self.scope["session"].session_key})


class ThemePageConsumer(AsyncHttpConsumer):
    async def handle(self, body):
        session = self.scope["session"]
        if body:
            session["theme"] = body.decode()
        theme = await database_sync_to_async(session.get)("theme", "light")
        await self.send_response(200, theme.encode())
