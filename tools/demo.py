"""Migrate, seed and serve the demo site, and say what to open. Usage: demo.py [PORT] (0: any)."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "demo"
HEADRACE = Path(sys.executable).with_name("headrace")
HOST = "127.0.0.1"
# The shell may have the settings of a project of its own.
ENVIRONMENT = os.environ | {"DJANGO_SETTINGS_MODULE": "millpond.settings"}

READY = """
The demo is running. Open http://{host}:{port} and choose one of the users.
To see it talk, open it in a second browser, or a private window, as somebody else.
Ctrl-C stops it."""


def listen(port: str) -> socket.socket:
    """Take the port first: if it can't be had, nothing else has been done."""
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        sys.exit(f"{port!r} is no port: write for instance make demo PORT=8001")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, int(port)))
    except OSError as error:
        listener.close()
        other = int(port) + 1 if 1024 <= int(port) < 65535 else 8001
        sys.exit(f"Port {port} can't be had: {error.strerror}. Try: make demo PORT={other}")
    return listener


def wait_until_it_answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Return False if the server has ended instead; it has said why."""
    while server.poll() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=1)
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(connection),
        ):
            connection.request("HEAD", "/")
            connection.getresponse()
            return True
        time.sleep(0.05)
    return False


def main() -> int:
    """Serve until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with listen(sys.argv[1] if len(sys.argv) > 1 else "8000") as listener:
        port = listener.getsockname()[1]
        for command in (("migrate", "--verbosity", "0"), ("seed",)):
            # In a group of its own: Ctrl-C reaches this process, which kills the command, alone.
            subprocess.run(  # noqa: S603 - a command of our own
                [sys.executable, "manage.py", *command],
                cwd=DEMO,
                env=ENVIRONMENT,
                check=True,
                process_group=0,
            )
        server = subprocess.Popen(  # noqa: S603 - the same
            [
                HEADRACE,
                *("serve", "millpond.asgi:application", "--fd", str(listener.fileno())),
                *("--no-access-log", "--log-level", "warning"),
            ],
            cwd=DEMO,
            env=ENVIRONMENT,
            pass_fds=[listener.fileno()],
        )
    # A terminal sends Ctrl-C to the server too, and other programs know only this process.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    if wait_until_it_answers(server, port):
        print(READY.format(host=HOST, port=port), flush=True)
    return server.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # End as a program does that knows nothing of signals: make says nothing to that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has said why
