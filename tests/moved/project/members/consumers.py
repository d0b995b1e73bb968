from asgiref.sync import async_to_sync
from channels.auth import get_user, login, logout
from channels.generic.websocket import JsonWebsocketConsumer
from django.contrib.auth import authenticate


class MemberConsumer(JsonWebsocketConsumer):
    def connect(self):
        self.accept()
        self.tell()

    def receive_json(self, content):
        if content["do"] == "log in":
            user = authenticate(username=content["name"], password=content["password"])
            if user is None:
                self.send_json({"error": "wrong name or password"})
                return
            async_to_sync(login)(self.scope, user)
        elif content["do"] == "log out":
            async_to_sync(logout)(self.scope)
        self.scope["session"].save()
        self.tell()

    def tell(self):
        user = async_to_sync(get_user)(self.scope)
        self.send_json({"user": user.get_username(), "key": self.scope["session"].session_key})
