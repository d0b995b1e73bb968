import datetime
import json

from channels.db import database_sync_to_async
from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.contrib.auth import get_user_model


class DateEncoder(json.JSONEncoder):
    def default(self, value):
        return value.isoformat() if isinstance(value, datetime.date) else super().default(value)


class QuizConsumer(AsyncJsonWebsocketConsumer):
    questions = {"6 x 7": "42", "the capital of Peru": "Lima"}

    async def connect(self):
        self.round = self.scope["url_route"]["kwargs"]["round"]
        if self.round > 3:
            raise DenyConnection("there are three rounds")
        await self.accept("quiz" if "quiz" in self.scope["subprotocols"] else None)
        await self.send_json({"round": self.round, "players": await self.count_players()})

    async def receive_json(self, content, **kwargs):
        if content.get("give up"):
            await self.close(code=4100, reason="gave up")
            return
        right = self.questions.get(content["question"]) == content["answer"]
        await self.send_json({"right": right, "on": datetime.date(2026, 1, 2)})

    @database_sync_to_async
    def count_players(self):
        return get_user_model().objects.count()

    @classmethod
    async def encode_json(cls, content):
        return json.dumps(content, cls=DateEncoder)
