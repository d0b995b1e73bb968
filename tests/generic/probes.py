"""Two consumers that do as they are told, one asynchronous and one not, and keep a diary."""

import asyncio

from asgiref.sync import async_to_sync

from headrace.exceptions import AcceptConnection, DenyConnection, StopConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer


class Diary:
    """What consumers did, on whatever thread, and a way to wait for it."""

    def __init__(self):
        self.entries = []
        self.consumers = []
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def note(self, *entry):
        self.entries.append(entry)
        self._loop.call_soon_threadsafe(self._news.set)

    async def until(self, *entry):
        await self.until_true(lambda: entry in self.entries)

    async def until_true(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def all(self, kind):
        return [rest[0] if rest else None for first, *rest in self.entries if first == kind]


class Trouble(Exception):
    """An error of the application."""


class AsyncProbe(AsyncWebsocketConsumer):
    diary = None
    connecting = "accept"
    disconnecting = ""
    gate = None

    async def connect(self):
        self.diary.consumers.append(self)
        self.diary.note("connect")
        if self.gate is not None:
            await self.gate.wait()
        match self.connecting:
            case "accept":
                await self.accept()
            case "subprotocol":
                await self.accept("second", headers=[(b"x-probe", b"yes")])
            case "raise accept":
                raise AcceptConnection
            case "raise deny":
                raise DenyConnection
            case "close":
                await self.close()
            case "deny":
                await self.deny(404, "no such room")
            case "deny with bytes":
                headers = [(b"content-type", b"application/json"), (b"x-reason", b"room")]
                await self.deny(401, b'{"room": null}', headers)
            case "deny with nothing":
                await self.deny()
            case "fail":
                raise Trouble("in connect")
            case "stop":
                raise StopConsumer

    async def receive(self, text_data=None, bytes_data=None):
        if bytes_data is not None:
            await self.send(bytes_data=bytes_data)
            return
        command, _, argument = text_data.partition(" ")
        match command:
            case "echo":
                await self.send(argument)
            case "fail":
                raise Trouble("in receive")
            case "stop":
                raise StopConsumer
            case "close":
                await self.close(int(argument), reason="told to")
            case "deny":
                await self.deny(404, "too late")
            case "goodbye":
                await self.send("goodbye", close=4002)
            case "join":
                await self.channel_layer.group_add(argument, self.channel_name)
                await self.send("joined")
            case "hang":
                self.diary.note("hang")
                await asyncio.Event().wait()
            case "talk":
                self.diary.note("talk")
                while True:
                    await self.send("x" * 1000)
                    await asyncio.sleep(0)
            case "note":
                self.diary.note("note", argument)
                await self.send("noted")

    async def chat_message(self, event):
        # Handlers do such things; it must not be seen elsewhere.
        assert event.pop("type") == "chat.message"
        event["seen"].append(1)
        await self.send(event["text"] + "!" * len(event["seen"]))

    async def chat_fail(self, event):
        raise Trouble("in a handler")

    async def disconnect(self, code):
        self.diary.note("disconnect", code)
        match self.disconnecting:
            case "fail":
                raise Trouble("in disconnect")
            case "send":
                await self.send("still there?")


class SyncProbe(WebsocketConsumer):
    diary = None
    connecting = "accept"
    disconnecting = ""
    gate = None

    def connect(self):
        self.diary.consumers.append(self)
        self.diary.note("connect")
        if self.gate is not None:
            async_to_sync(self.gate.wait)()
        match self.connecting:
            case "accept":
                self.accept()
            case "subprotocol":
                self.accept("second", headers=[(b"x-probe", b"yes")])
            case "raise accept":
                raise AcceptConnection
            case "raise deny":
                raise DenyConnection
            case "close":
                self.close()
            case "deny":
                self.deny(404, "no such room")
            case "deny with bytes":
                headers = [(b"content-type", b"application/json"), (b"x-reason", b"room")]
                self.deny(401, b'{"room": null}', headers)
            case "deny with nothing":
                self.deny()
            case "fail":
                raise Trouble("in connect")
            case "stop":
                raise StopConsumer

    def receive(self, text_data=None, bytes_data=None):
        if bytes_data is not None:
            self.send(bytes_data=bytes_data)
            return
        command, _, argument = text_data.partition(" ")
        match command:
            case "echo":
                self.send(argument)
            case "fail":
                raise Trouble("in receive")
            case "stop":
                raise StopConsumer
            case "close":
                self.close(int(argument), reason="told to")
            case "deny":
                self.deny(404, "too late")
            case "goodbye":
                self.send("goodbye", close=4002)
            case "join":
                async_to_sync(self.channel_layer.group_add)(argument, self.channel_name)
                self.send("joined")
            case "hang":
                self.diary.note("hang")
                async_to_sync(asyncio.Event().wait)()
            case "talk":
                self.diary.note("talk")
                while True:
                    self.send("x" * 1000)
            case "note":
                self.diary.note("note", argument)
                self.send("noted")

    def chat_message(self, event):
        assert event.pop("type") == "chat.message"
        event["seen"].append(1)
        self.send(event["text"] + "!" * len(event["seen"]))

    def chat_fail(self, event):
        raise Trouble("in a handler")

    def disconnect(self, code):
        self.diary.note("disconnect", code)
        match self.disconnecting:
            case "fail":
                raise Trouble("in disconnect")
            case "send":
                self.send("still there?")
