"""A place to listen, and how others write one.

Rules of this file:

- A place is one of three: an address and a port, the path of a Unix socket, or a socket that
  was inherited.
- The strings are those of Twisted, for people who come from Daphne: what can be done here is
  done, the rest is refused with a word about what does it instead.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..exceptions import ConfigurationError
from .tls import Tls

__all__ = ["Address", "Endpoint"]

#: Host and port, as a connection names its ends; of a Unix socket its path, and no port.
Address = tuple[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A place to listen: ``fd``, else ``uds``, else ``host`` and ``port``."""

    host: str = "127.0.0.1"
    #: 0 lets the system choose a free one; the log says which.
    port: int = 8000
    #: The path of a Unix socket.
    uds: str | None = None
    #: The rights of its file, as 0o660; None: those that the umask leaves.
    uds_mode: int | None = None
    #: A listening socket that was inherited.
    fd: int | None = None
    #: What to speak TLS with; None: there is none.
    tls: Tls | None = None
    #: Whether connections begin with a PROXY header.
    proxy_protocol: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port must be from 0 to 65535, not {self.port}")
        if self.uds_mode is not None and not 0 <= self.uds_mode <= 0o777:
            raise ConfigurationError(f"uds_mode must be from 0o0 to 0o777, not {self.uds_mode:#o}")

    def __str__(self) -> str:
        if self.fd is not None:
            return f"file descriptor {self.fd}"
        return self.uds or f"{self.host} port {self.port}"

    @classmethod
    def from_twisted(cls, text: str) -> "Endpoint":
        r"""Read a server string of Twisted: ``tcp:8000:interface=0.0.0.0``, ``unix:/run/a.sock``.

        Raises ConfigurationError where it asks for what is not done here.
        """
        kind, *parts = _split(text)
        if kind == "haproxy":
            return replace(cls.from_twisted(text.partition(":")[2]), proxy_protocol=True)
        reader = _READERS.get(kind)
        if reader is None:
            raise ConfigurationError(
                f"an endpoint {text!r} can't be had: {_INSTEAD.get(kind, _SUPPORTED)}"
            )
        arguments, named = [], {}
        for part in parts:
            name, equals, value = part.partition("=")
            if equals:
                named[name] = value
            else:
                arguments.append(part)
        try:
            endpoint = reader(*arguments, **named)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"an endpoint {text!r} can't be read: {error}; {_SUPPORTED}"
            ) from None
        return endpoint


def _split(text: str) -> list[str]:
    """Return the parts between colons; a backslash keeps the next character what it is."""
    return [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:^|:)((?:\\.|[^:\\])*)", text)]


def _tcp(port: str, interface: str = "0.0.0.0", backlog: str = "50") -> Endpoint:  # noqa: S104
    del backlog  # it has an option of its own
    return Endpoint(host=interface, port=int(port))


def _tcp6(port: str, interface: str = "::", backlog: str = "50") -> Endpoint:
    return _tcp(port, interface, backlog)


def _unix(address: str, mode: str = "666", backlog: str = "50", lockfile: str = "1") -> Endpoint:
    del backlog, lockfile  # a socket that another server listens on is left alone anyway
    return Endpoint(uds=address, uds_mode=int(mode, 8))


def _ssl(
    port: str,
    privateKey: str,  # noqa: N803 - the names are Twisted's
    certKey: str = "",  # noqa: N803
    interface: str = "0.0.0.0",  # noqa: S104
    backlog: str = "50",
    extraCertChain: str = "",  # noqa: N803
) -> Endpoint:
    del backlog
    if extraCertChain:
        raise ValueError("append it to the certificate, and leave out extraCertChain")
    tls = Tls(certificate=certKey or privateKey, key=privateKey)
    return Endpoint(host=interface, port=int(port), tls=tls)


def _fd(fileno: str) -> Endpoint:
    return Endpoint(fd=int(fileno))


def _systemd(domain: str = "", index: str = "0", name: str = "") -> Endpoint:
    del domain
    if name:
        names = os.environ.get("LISTEN_FDNAMES", "").split(":")
        if name not in names:
            raise ValueError(f"systemd has handed over no socket named {name!r}, but {names}")
        return Endpoint(fd=SYSTEMD_FIRST_FD + names.index(name))
    return Endpoint(fd=SYSTEMD_FIRST_FD + int(index))


#: Where systemd puts the sockets that it hands over (sd_listen_fds(3)).
SYSTEMD_FIRST_FD = 3

_READERS: dict[str, Callable[..., Endpoint]] = {
    "tcp": _tcp,
    "tcp6": _tcp6,
    "ssl": _ssl,
    "unix": _unix,
    "fd": _fd,
    "systemd": _systemd,
}
_SUPPORTED = (
    "write tcp:PORT:interface=ADDRESS, ssl:PORT:privateKey=FILE:certKey=FILE, unix:PATH, "
    "fd:fileno=N or systemd:index=N, "
    "or --bind and --port, --uds, --fd"
)
_INSTEAD = dict.fromkeys(
    ("tls", "txacme", "le"),
    "certificates are got and renewed by a program of their own: name their files with "
    "--tls-certificate and --tls-key",
)
