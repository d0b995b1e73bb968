"""A bare ASGI application: what an ASGI server does before any framework is added."""

from stall import Stall

members = set()


async def application(scope, receive, send):
    assert scope["type"] == "websocket"
    in_group = scope["path"] == "/group/"
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/stall/":
        await tell_stalls(receive, send)
        return
    if in_group:
        members.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            message = {"type": "websocket.send", "text": event["text"]}
            if in_group:
                for send_to_member in list(members):
                    await send_to_member(message)
            else:
                await send(message)
    finally:
        members.discard(send)


async def tell_stalls(receive, send):
    stall = Stall()
    try:
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": stall.asked()})
    finally:
        stall.end()
