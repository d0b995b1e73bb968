from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.test import TestCase
from django.urls import path

from .consumers import QuizConsumer

application = URLRouter([path("quiz/<int:round>/", QuizConsumer.as_asgi())])


class QuizTests(TestCase):
    async def test_a_round(self):
        communicator = WebsocketCommunicator(application, "/quiz/1/", subprotocols=["quiz"])
        self.assertEqual(await communicator.connect(), (True, "quiz"))
        self.assertEqual(await communicator.receive_json_from(), {"round": 1, "players": 0})
        await communicator.send_json_to({"question": "6 x 7", "answer": "42"})
        answer = await communicator.receive_json_from()
        self.assertEqual(answer, {"right": True, "on": "2026-01-02"})
        await communicator.send_json_to({"give up": True})
        closing = await communicator.receive_output()
        self.assertEqual(closing["code"], 4100)
        await communicator.disconnect()

    async def test_there_is_no_fourth_round(self):
        communicator = WebsocketCommunicator(application, "/quiz/4/")
        connected, _ = await communicator.connect()
        self.assertFalse(connected)
