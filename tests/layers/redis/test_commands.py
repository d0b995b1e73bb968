"""What a group costs Redis: as many commands whatever its size, counted by the server."""

import asyncio
from collections import Counter

import pytest

from headrace.layers import RedisChannelLayer

#: What the client says about itself, and what the test asks.
ASIDE = ("client", "command", "config", "hello", "info", "ping", "script")


class Silent:
    """A member that counts what it is sent."""

    def __init__(self):
        self.events = 0
        self.thrice = asyncio.Event()

    def put(self, event):
        self.events += 1
        if self.events == 3:
            self.thrice.set()
        return True

    transmit = put


def commands(server):
    return Counter(
        {
            name: calls
            for name, calls in server.calls().items()
            if name.partition("|")[0] not in ASIDE
        }
    )


@pytest.mark.parametrize("how", ["asynchronously", "synchronously"])
async def test_a_group_send_costs_the_same_whatever_the_number_of_members(own_server, how):
    sender, receiver = (RedisChannelLayer(hosts=[own_server.url]) for _ in range(2))
    sinks = []
    spent = {}
    try:
        for members in (10, 10_000):
            while len(sinks) < members:
                sinks.append(Silent())
                channel = await receiver.new_channel()
                receiver.attach(channel, sinks[-1])
                await receiver.group_add("room", channel)
            # Connections and scripts are there after the first.
            for number in range(3):
                before = commands(own_server)
                if how == "asynchronously":
                    await sender.group_send("room", {"type": "it", "number": number})
                else:
                    event = {"type": "it", "number": number}
                    await asyncio.to_thread(sender.group_send_sync, "room", event)
                after = commands(own_server)
            spent[members] = after - before
            async with asyncio.timeout(20):
                await sinks[-1].thrice.wait()
        assert spent[10] == spent[10_000]
        assert spent[10]["publish"] == 1
        # One command that is sent: a script, which publishes and looks for named channels.
        assert spent[10].total() <= 3
    finally:
        await sender.close()
        await receiver.close()


async def test_members_that_come_and_go_cost_a_command_for_the_first_and_the_last(own_server):
    layer = RedisChannelLayer(hosts=[own_server.url])
    try:
        channels = [await layer.new_channel() for _ in range(1_000)]
        for channel in channels:
            layer.attach(channel, Silent())
        await layer.group_add("room", channels[0])
        before = commands(own_server)
        for channel in channels[1:]:
            await layer.group_add("room", channel)
        for channel in channels[1:]:
            layer.detach(channel)
        assert commands(own_server) == before
    finally:
        await layer.close()
