"""A server in a process of its own with few descriptors, and an application that takes them.

Run with the name of an event loop; ``/take`` uses up all that are left, ``/give`` gives them back.
"""

import asyncio
import logging
import os
import resource
import sys
import time

import uvloop

from headrace.server.config import Config
from headrace.server.server import Server

from .clients import respond

taken = []


async def application(scope, receive, send):
    match scope["path"]:
        case "/take":
            try:
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
        case "/give":
            while taken:
                os.close(taken.pop())
    await respond(send, str(time.process_time()).encode())


async def main():
    server = Server(application, Config(port=0, lifespan="off", access_log=False))
    await server.serve(started=lambda: print(server.port, flush=True))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
    factory = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
