"""Connections to Redis. The one module that imports redis-py.

Rules of this file:

- redis-py connects, logs in, encrypts and parses. When to connect again, what to send again and
  what to tell whom is decided elsewhere, so its own retries are off.
- A server that answers with an error has answered: that is a ``Refusal``, a value among the
  replies. Only what happens to the connection itself is raised, as ``Unreachable``.
- Whatever else goes wrong with a connection, in redis-py or in the event loop, is the end of that
  connection and of nothing more: it is ``Unreachable``, too.
- A server that can't be used, whatever one tries, is an InvalidChannelLayerError that names the
  setting: a wrong password, a version that is too old, a node of a cluster where none was named.
- ``Wire`` belongs to an event loop, ``SyncWire`` to whichever thread has it.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ...exceptions import InvalidChannelLayerError
from .config import Endpoint, SentinelSet

try:
    import redis.asyncio.connection as asynchronous
    import redis.connection as synchronous
    from redis import exceptions
except ImportError as error:
    raise ImportError(
        "the Redis layer needs redis-py: pip install 'headrace[redis]'", name="redis"
    ) from error

__all__ = [
    "Command",
    "Refusal",
    "Reply",
    "SyncWire",
    "Unreachable",
    "Wire",
    "find_primary",
    "find_primary_sync",
]

#: The name of a command, and its arguments.
Command: TypeAlias = Sequence[str | bytes | int | float]
#: What a server answers: bytes, a number, nothing, a list of such, or a ``Refusal``.
Reply: TypeAlias = Any

#: The oldest with scripts that say what they may do, and with publications within a slot.
_OLDEST = (7, 0)
_CONNECT_TIMEOUT_S = 3.0

_CODES: Mapping[type[Exception], str] = {
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.AuthenticationWrongNumberOfArgsError: "WRONGPASS",
    # From redis-py 6 on.
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
}
#: What the server answers before the connection can be used; redis-py calls these failures of
#: the connection.
_ANSWERS = (
    exceptions.ResponseError,
    exceptions.AuthenticationError,
    exceptions.BusyLoadingError,
)


class Unreachable(Exception):
    """A connection can't be made, or has come to an end."""


class Refusal(Exception):
    """A server's error in the place of a reply: its code, such as ``OOM``, and its text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


def _refusal(error: Exception) -> Refusal:
    code, text = _CODES.get(type(error)), str(error)
    if code is None:
        first, _, rest = text.partition(" ")
        code, text = (first, rest) if first.isupper() and rest else ("ERR", text)
    return Refusal(code, text)


def _unreachable(endpoint: Endpoint, error: BaseException) -> Unreachable:
    told = str(error).rstrip(".") or type(error).__name__
    return Unreachable(f"{endpoint} ({endpoint.setting}): {told}")


# What a connection is made of


def _options(endpoint: Endpoint, ssl_options: bool, timeout_s: float | None) -> dict[str, Any]:
    options = {
        name: value
        for name, value in endpoint.options.items()
        if name not in ("ssl", "health_check_interval")
        and (ssl_options or not name.startswith("ssl_"))
    }
    if endpoint.path is not None:
        options["path"] = endpoint.path
        for name in ("socket_keepalive", "socket_keepalive_options"):
            options.pop(name, None)
    else:
        options |= {"host": endpoint.host, "port": endpoint.port}
    options["socket_timeout"] = timeout_s
    options["socket_connect_timeout"] = connect_timeout_s(endpoint)
    return options | {"protocol": 2}


def connect_timeout_s(endpoint: Endpoint) -> float:
    """Return how long a connection may take to be made."""
    return endpoint.option("socket_connect_timeout", _CONNECT_TIMEOUT_S)


def _connection(module: Any, endpoint: Endpoint, timeout_s: float | None) -> Any:
    if endpoint.path is not None:
        return module.UnixDomainSocketConnection(**_options(endpoint, False, timeout_s))
    if endpoint.options.get("ssl"):
        return module.SSLConnection(**_options(endpoint, True, timeout_s))
    return module.Connection(**_options(endpoint, False, timeout_s))


# What a server says of itself


def _greet(endpoint: Endpoint, reply: Reply, *, mode: str) -> None:
    """Check what a server answers to HELLO; raise InvalidChannelLayerError or Unreachable."""
    if isinstance(reply, Refusal):
        if reply.code in ("NOAUTH", "WRONGPASS"):
            raise _locked(endpoint)
        if reply.code == "ERR" and "unknown command" in reply.text.lower():
            raise _too_old(endpoint, "older than 6")
        # Whoever may not ask may still be let do the rest.
        return
    told = {_text(name): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
    version, found = _text(told.get("version")), _text(told.get("mode"))
    if mode == "sentinel" or found == "sentinel":
        if found != mode:
            raise InvalidChannelLayerError(
                f"{endpoint.setting} in the CONFIG of CHANNEL_LAYERS: {endpoint} is "
                + (
                    "a Sentinel: write {'sentinels': […], 'master_name': …}"
                    if found == "sentinel"
                    else "no Sentinel"
                )
            )
        return
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < _OLDEST:
        raise _too_old(endpoint, version)
    if found in ("standalone", "cluster") and found != mode:
        raise InvalidChannelLayerError(
            f"{endpoint.setting} in the CONFIG of CHANNEL_LAYERS: {endpoint} is "
            + (
                "a node of a cluster: write {'cluster': […]}"
                if found == "cluster"
                else "a single server and no cluster: name it without 'cluster'"
            )
        )
    if mode == "standalone" and _text(told.get("role")) in ("slave", "replica"):
        # It may have been the primary a moment ago, and may become it again.
        raise Unreachable(
            f"{endpoint} ({endpoint.setting}) is a replica: name the primary, or its Sentinels"
        )


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _locked(endpoint: Endpoint) -> InvalidChannelLayerError:
    return InvalidChannelLayerError(
        f"{endpoint.setting} in the CONFIG of CHANNEL_LAYERS: {endpoint} wants a password: "
        "write it into its 'password'"
    )


def _too_old(endpoint: Endpoint, version: str) -> InvalidChannelLayerError:
    return InvalidChannelLayerError(
        f"{endpoint.setting} in the CONFIG of CHANNEL_LAYERS: {endpoint} has version {version}; "
        f"the layer needs Redis {'.'.join(map(str, _OLDEST))} or later, or Valkey"
    )


@contextlib.contextmanager
def _connecting(endpoint: Endpoint) -> Iterator[None]:
    """Tell apart what a server says when one logs in, and that there is none."""
    try:
        yield
    except _ANSWERS as error:
        refusal = _refusal(error)
        if refusal.text.startswith("Authentication required"):
            # To the words by which redis-py introduces itself, from Redis 7.2 and in Valkey.
            raise _locked(endpoint) from error
        if refusal.code in ("WRONGPASS", "NOPERM", "NOAUTH") or "AUTH" in refusal.text:
            raise InvalidChannelLayerError(
                f"{endpoint.setting} in the CONFIG of CHANNEL_LAYERS: {endpoint} does not let "
                f"us in: {refusal.text}; see its 'username' and 'password'"
            ) from error
        raise _unreachable(endpoint, refusal) from error
    except Exception as error:
        raise _unreachable(endpoint, error) from error


class Wire:
    """A connection on an event loop.

    Args:
        endpoint: The server.
        mode: What the server has to be: ``standalone``, ``cluster`` or ``sentinel``.
    """

    def __init__(self, endpoint: Endpoint, mode: str = "standalone") -> None:
        self.endpoint = endpoint
        self._mode = mode
        self._connection = _connection(asynchronous, endpoint, None)

    async def open(self) -> None:
        """Connect, log in and see that the server is of use.

        Raises Unreachable or InvalidChannelLayerError.
        """
        try:
            async with asyncio.timeout(2 * connect_timeout_s(self.endpoint)):
                with _connecting(self.endpoint):
                    await self._connection.connect()
                (reply,) = await self.exchange([("HELLO",)])
            _greet(self.endpoint, reply, mode=self._mode)
        except TimeoutError:
            await self.close()
            raise Unreachable(f"{self.endpoint} ({self.endpoint.setting}): no answer") from None
        except BaseException:
            await self.close()
            raise

    async def send(self, commands: Iterable[Command]) -> None:
        """Write the commands; Unreachable when the connection is broken."""
        connection = self._connection
        if not connection.is_connected:  # redis-py would connect anew
            raise Unreachable(f"{self.endpoint} ({self.endpoint.setting}): closed")
        packed = connection.pack_commands(commands)
        try:
            await connection.send_packed_command(packed, check_health=False)
        except Exception as error:
            raise _unreachable(self.endpoint, error) from error

    async def read(self) -> Reply:
        """Return the next reply; Unreachable when the connection is broken."""
        try:
            return await self._connection.read_response(
                disable_decoding=True, disconnect_on_error=False
            )
        except _ANSWERS as error:
            return _refusal(error)
        except Exception as error:
            raise _unreachable(self.endpoint, error) from error

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Write the commands, and return the reply to each."""
        await self.send(commands)
        return [await self.read() for _ in commands]

    def abandon(self) -> None:
        """Let go, in a forked child, of the connection: it stays the parent's."""
        writer = getattr(self._connection, "_writer", None)
        if writer is not None:
            with contextlib.suppress(OSError):
                os.close(writer.get_extra_info("socket").fileno())

    async def close(self) -> None:
        """Close the connection now, whatever waits to be written."""
        writer = getattr(self._connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()
        with contextlib.suppress(Exception):
            await self._connection.disconnect(nowait=True)


class SyncWire:
    """A connection of a thread. Each answer may take as long as ``timeout_s``."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, mode: str = "standalone") -> None:
        self.endpoint = endpoint
        self._mode = mode
        self._connection = _connection(synchronous, endpoint, timeout_s)

    def open(self) -> None:
        """Connect, log in and see that the server is of use. Raises as ``Wire.open``."""
        try:
            with _connecting(self.endpoint):
                self._connection.connect()
            (reply,) = self.exchange([("HELLO",)])
            _greet(self.endpoint, reply, mode=self._mode)
        except BaseException:
            self.close()
            raise

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Write the commands, and return the reply to each; Unreachable when it is broken."""
        connection = self._connection
        packed = connection.pack_commands(commands)
        try:
            connection.send_packed_command(packed, check_health=False)
            return [self._read() for _ in commands]
        except Exception as error:
            raise _unreachable(self.endpoint, error) from error

    def _read(self) -> Reply:
        try:
            return self._connection.read_response(disable_decoding=True, disconnect_on_error=False)
        except _ANSWERS as error:
            return _refusal(error)

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            self._connection.disconnect()


# Sentinels


def _primary(sentinels: SentinelSet, reply: Reply) -> Endpoint | None:
    if not isinstance(reply, list) or len(reply) != 2:
        return None
    return sentinels.primary.at(_text(reply[0]), int(reply[1]))


def _unknown(sentinels: SentinelSet, errors: list[str]) -> Unreachable:
    return Unreachable(
        f"no Sentinel of {sentinels.setting} knows a primary {sentinels.master_name!r}: "
        + "; ".join(errors)
    )


async def find_primary(sentinels: SentinelSet) -> Endpoint:
    """Ask the Sentinels, one after the other, which server is the primary."""
    errors = []
    for endpoint in sentinels.sentinels:
        wire = Wire(endpoint, "sentinel")
        try:
            await wire.open()
            async with asyncio.timeout(connect_timeout_s(endpoint)):
                (reply,) = await wire.exchange([_question(sentinels)])
        except (Unreachable, TimeoutError) as error:
            errors.append(str(error) or f"{endpoint}: no answer")
        else:
            if (primary := _primary(sentinels, reply)) is not None:
                return primary
            errors.append(f"{endpoint} knows of none")
        finally:
            await wire.close()
    raise _unknown(sentinels, errors)


def find_primary_sync(sentinels: SentinelSet) -> Endpoint:
    """Do what ``find_primary`` does, on a thread."""
    errors = []
    for endpoint in sentinels.sentinels:
        wire = SyncWire(endpoint, connect_timeout_s(endpoint), "sentinel")
        try:
            wire.open()
            (reply,) = wire.exchange([_question(sentinels)])
        except Unreachable as error:
            errors.append(str(error))
        else:
            if (primary := _primary(sentinels, reply)) is not None:
                return primary
            errors.append(f"{endpoint} knows of none")
        finally:
            wire.close()
    raise _unknown(sentinels, errors)


def _question(sentinels: SentinelSet) -> Command:
    return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinels.master_name)
