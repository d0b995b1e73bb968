"""picows on uvloop: its callbacks, and a group as a loop of transport sends."""

import sys

import uvloop
from picows import WSListener, WSMsgType, ws_create_server
from stall import Stall

members = set()


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Member(WSListener):
    def on_ws_connected(self, transport):
        members.add(transport)

    def on_ws_disconnected(self, transport):
        members.discard(transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            payload = frame.get_payload_as_bytes()
            for member in members:
                member.send(WSMsgType.TEXT, payload)


class StallTeller(WSListener):
    def on_ws_connected(self, transport):
        self.stall = Stall()

    def on_ws_disconnected(self, transport):
        self.stall.end()

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        else:
            transport.send(WSMsgType.TEXT, self.stall.asked().encode())


LISTENERS = {b"/group/": Member, b"/stall/": StallTeller}


async def main(port):
    def listener(request):
        return LISTENERS.get(request.path, Echo)()

    server = await ws_create_server(listener, "127.0.0.1", port)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
