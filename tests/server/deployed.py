"""An application to deploy: each answer names the process that gave it."""

import asyncio
import os
import sys
import time

from .clients import read_body, respond

PID = str(os.getpid()).encode()


async def application(scope, receive, send):
    match scope["type"]:
        case "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        case "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": PID.decode()})
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
            return
    match scope["path"]:
        case "/slow":
            await asyncio.sleep(0.3)
        case "/hang":
            time.sleep(600)  # noqa: ASYNC251 - it hangs
        case "/exit":
            os._exit(7)
        case "/grow":
            globals()["ballast"] = bytearray(os.urandom(1)) * 200_000_000
        case "/layer":
            await respond(send, os.environ.get("HEADRACE_DEFAULT_LAYER", "").encode())
            return
        case "/environment":
            names = [name for name in os.environ if name.startswith(("HEADRACE", "LISTEN", "NOTI"))]
            await respond(send, " ".join(sorted(names)).encode())
            return
    await read_body(receive)
    await respond(send, PID)


if os.environ.get("EXIT_AT_IMPORT"):
    sys.exit(int(os.environ["EXIT_AT_IMPORT"]))
if os.environ.get("HANG_AT_IMPORT"):
    time.sleep(600)
