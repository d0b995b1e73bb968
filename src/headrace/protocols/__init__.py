"""Protocol engines, sans-IO: bytes in, events and bytes out.

No engine knows a loop, a socket or a clock. Each has the same face:
``receive(data, now)``, ``receive_eof(now)``, ``data_to_send()``, ``deadline()``,
``timeout(now)``, with ``now`` in seconds of any monotonic clock, the same one in every
call. What the peer sends never surfaces as anything but an event or, before a connection
stands, a ``HandshakeError``.

The engines of HTTP/1.1 and of WebSockets are compiled where that was possible at install;
``HEADRACE_PURE=1`` in the environment has them run as the plain Python that they are.
"""
