"""The least that an ASGI application can answer with."""

HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"5")],
}
BODY = {"type": "http.response.body", "body": b"Hello"}


async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send(HEAD)
    await send(BODY)
