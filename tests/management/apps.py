"""Applications for the command to serve."""

import os
import signal

from tests.server.clients import echo

application = echo


async def interrupted(scope, receive, send):
    """Somebody presses CONTROL-C while it starts."""
    if scope["type"] == "lifespan":
        os.kill(os.getpid(), signal.SIGINT)
