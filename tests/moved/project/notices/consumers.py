import time

from channels.generic.websocket import WebsocketConsumer

from .models import Notice


class NoticeConsumer(WebsocketConsumer):
    groups = ["notices"]

    def connect(self):
        self.accept()
        for notice in Notice.objects.order_by("pk"):
            self.send(text_data=notice.text)

    def receive(self, text_data=None, bytes_data=None):
        if text_data == "take your time":
            time.sleep(0.5)
            self.send(text_data="done")
        elif text_data == "bye":
            self.send(text_data="bye", close=4000)
        else:
            Notice.objects.create(text=text_data)
            self.send(text_data="kept")

    def notice_posted(self, event):
        self.send(text_data=Notice.objects.get(pk=event["id"]).text)
