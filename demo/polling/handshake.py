"""What a WebSocket's handshake and its frames say, step by step (RFC 6455 §4.2.2, §5.2)."""

import hashlib
import zlib
from base64 import b64encode

from headrace.protocols.websocket import encode_frame

__all__ = ["GUID", "explained", "frame_from_client", "frame_to_client"]

#: The same for every server in the world: who appends it knows the protocol.
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# What tells a browser's session from another's is not shown, not even to its owner.
SECRET = (b"cookie", b"authorization")

FIN, RSV1, TEXT = 0x80, 0x40, 0x1
MASKED, MASK_BYTES = 0x80, 4


def explained(scope: dict, *, extensions: str, received_bytes: int, sent_bytes: int) -> dict:
    """Return a handshake as the server saw it and answered it, once it is accepted.

    ``extensions`` is what the server has agreed to; the sizes are those of request and answer.
    """
    headers = [
        [
            name.decode("latin-1"),
            f"… ({len(value)} bytes)" if name in SECRET else value.decode("latin-1"),
        ]
        for name, value in scope["headers"]
    ]
    key = dict(scope["headers"]).get(b"sec-websocket-key", b"").decode("latin-1")
    answer = [["upgrade", "websocket"], ["connection", "Upgrade"]] if key else []
    digest = hashlib.sha1(f"{key}{GUID}".encode(), usedforsecurity=False).digest()
    accept = b64encode(digest).decode()
    if key:
        answer.append(["sec-websocket-accept", accept])
    if extensions:
        answer.append(["sec-websocket-extensions", extensions])
    return {
        "http_version": scope["http_version"],
        "path": scope["raw_path"].decode("latin-1"),
        "request": headers,
        "request_bytes": received_bytes,
        "answer": answer,
        "answer_bytes": sent_bytes,
        # HTTP/2 has neither: there HTTP itself says who answers whom (RFC 8441 §5).
        "accept": {"key": key, "guid": GUID, "sha1": digest.hex(), "accept": accept}
        if key
        else None,
        "extensions": extensions,
    }


def frame_to_client(text: str, *, wire_bytes: int) -> dict:
    """Return a frame that was sent: ``wire_bytes`` is what the server has counted for it.

    Where that is the length of the frame as the server's own encoder makes it, these are the bytes
    that were sent. Else they are None.
    """
    frame = encode_frame(FIN | TEXT, text.encode())
    return shown("page", text, wire_bytes, frame.hex() if len(frame) == wire_bytes else None)


def frame_from_client(text: str, *, wire_bytes: int, extensions: str) -> dict:
    """Return a frame that came, but for its mask, which no application gets to see.

    Browsers compress short messages, too. What zlib makes of the text is shown if the frame that
    follows from it has as many bytes as came; where neither has, or other frames came with this
    one, there are none to show.
    """
    payloads = {FIN | TEXT: text.encode()}
    if "permessage-deflate" in extensions:
        payloads[FIN | RSV1 | TEXT] = deflated(text.encode())
    for head, payload in payloads.items():
        frame = encode_frame(head, payload)
        if len(frame) + MASK_BYTES == wire_bytes:
            header = frame[: len(frame) - len(payload)]
            masked = bytes((header[0], header[1] | MASKED)) + header[2:]
            return shown("server", text, wire_bytes, masked.hex() + "????????" + payload.hex())
    return shown("server", text, wire_bytes, None)


def shown(to, text, wire_bytes, as_hex):
    return {"to": to, "text": text, "wire_bytes": wire_bytes, "bytes": as_hex}


def deflated(data):
    # RFC 7692 §7.2.1: the last four bytes of the flush are left out.
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
