"""Every error that Headrace raises, and every close code that it sends.

::

    Exception
    ├── ProtocolError
    │   ├── LocalProtocolError      our side asked for what the protocol or the state forbids
    │   └── RemoteProtocolError     the peer broke the protocol; knows the close code
    │       └── HandshakeError      an HTTP request that can't be served; knows the status
    ├── ConfigurationError          a setting, an option or a name that can't be used (a ValueError)
    ├── ControlError                a running server can't be asked, or says no to what it is asked
    ├── InvalidChannelLayerError    CHANNEL_LAYERS names what isn't there (a ValueError)
    ├── ChannelLayerUnavailable     the server of the channel layer can't be reached, or refuses
    ├── ChannelFull                 the channel has no room for one more message
    ├── MessageTooLarge             the channel layer can't carry a message of this size
    ├── RequestAborted              the client left while its request was being read
    │   └── RequestTimeout          the client took too long to send its request
    ├── AcceptConnection            raised in ``connect()``: accept, and go on
    ├── DenyConnection              raised in ``connect()``: refuse the connection
    └── StopConsumer                raised in a handler: this consumer has done its work

The caller's mistake and the peer's fault never share a class. The names from
``InvalidChannelLayerError`` down are those of Django Channels, ``ChannelLayerUnavailable`` aside.
"""

from enum import IntEnum

__all__ = [
    "AcceptConnection",
    "ChannelFull",
    "ChannelLayerUnavailable",
    "CloseCode",
    "ConfigurationError",
    "ControlError",
    "DenyConnection",
    "HandshakeError",
    "InvalidChannelLayerError",
    "LocalProtocolError",
    "MessageTooLarge",
    "ProtocolError",
    "RemoteProtocolError",
    "RequestAborted",
    "RequestTimeout",
    "StopConsumer",
]


class CloseCode(IntEnum):
    """A WebSocket close code (RFC 6455 §7.4.1 and the IANA registry that it opens).

    1005, 1006 and 1015 are never on the wire: they are what an application is
    told when no code arrived. From 4000 on they are our own; the last three digits are
    those of the HTTP status that says the same.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    UNAUTHORIZED = 3000
    FORBIDDEN = 3003
    TIMEOUT = 3008
    #: The login that the connection came with has ended: log in before coming again.
    LOGGED_OUT = 4401


class ProtocolError(Exception):
    """Something on one side of a connection broke the protocol."""


class LocalProtocolError(ProtocolError):
    """Our side asked for what the protocol, or the connection's state, forbids."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    ``code`` is the close code that it is told, ``str(error)`` the reason.
    """

    def __init__(self, reason: str, *, code: int = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


class HandshakeError(RemoteProtocolError):
    """An HTTP request that can't be served as it stands.

    ``status`` is the HTTP status of the answer, ``headers`` what it carries beside
    the plain text of the reason.
    """

    def __init__(
        self, reason: str, *, status: int = 400, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


class ConfigurationError(ValueError):
    """A setting, an option or a name that can't be used; the text says what to write instead."""


class ControlError(Exception):
    """A running server can't be asked, or says no to what it is asked; the text says why."""


class InvalidChannelLayerError(ValueError):
    """``CHANNEL_LAYERS`` names a layer that can't be built."""


class ChannelLayerUnavailable(ConnectionError):
    """The server of the channel layer can't be reached, or refuses; the text says what to do."""


class ChannelFull(Exception):
    """The channel has no room for one more message."""


class MessageTooLarge(Exception):
    """The channel layer can't carry a message of this size."""


class RequestAborted(Exception):
    """The client left while its request was being read."""


class RequestTimeout(RequestAborted):
    """The client took too long to send its request."""


class AcceptConnection(Exception):
    """Raised in ``connect()``: accept the WebSocket, and go on."""


class DenyConnection(Exception):
    """Raised in ``connect()``: refuse the WebSocket."""


class StopConsumer(Exception):
    """Raised in a handler: this consumer has done its work."""
