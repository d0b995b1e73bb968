"""A server that is not ours."""

import asyncio
import contextlib
import socket

import uvicorn


@contextlib.asynccontextmanager
async def uvicorn_serves(application):
    """Run the application under Uvicorn, on a free port of the loopback, which is yielded."""
    config = uvicorn.Config(
        application, log_config=None, lifespan="off", ws="websockets-sansio", timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = asyncio.Event()
        startup = server.startup

        async def note_startup(sockets):
            await startup(sockets)
            started.set()

        server.startup = note_startup
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await started.wait()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task
