"""A bare ASGI application: what an ASGI server does before any framework is added."""

members = set()


async def application(scope, receive, send):
    assert scope["type"] == "websocket"
    in_group = scope["path"] == "/group/"
    await receive()
    await send({"type": "websocket.accept"})
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
