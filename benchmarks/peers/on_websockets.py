"""The websockets library, with its own ``broadcast()``, on uvloop."""

import sys

import uvloop
from stall import Stall
from websockets.asyncio.server import broadcast, serve

members = set()


async def handler(websocket):
    if websocket.request.path == "/stall/":
        await tell_stalls(websocket)
        return
    if websocket.request.path != "/group/":
        async for message in websocket:
            await websocket.send(message)
        return
    members.add(websocket)
    try:
        async for message in websocket:
            broadcast(members, message)
    finally:
        members.discard(websocket)


async def tell_stalls(websocket):
    stall = Stall()
    try:
        async for _ in websocket:
            await websocket.send(stall.asked())
    finally:
        stall.end()


async def main(port):
    async with serve(handler, "127.0.0.1", port, compression=None) as server:
        await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
