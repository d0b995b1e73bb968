"""TLS: what it is spoken with, how that is checked and renewed, and what applications hear of it.

Rules of this file:

- What can't work is said at the start, with the file and what is wrong with it: certificate and
  key are tried in a handshake of their own, in memory, before anybody connects.
- A renewed certificate is a new context. Connections keep the one that they began with, and one
  that can't be used leaves the old in place.
- The password of a key is never part of a message, a representation or a log.
"""

import logging
import re
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ..exceptions import ConfigurationError

__all__ = ["ClientCertificates", "Credentials", "Identity", "Tls", "TlsVersion"]

logger = logging.getLogger("headrace.server")

#: A certificate that ends so soon is worth a warning at the start.
EXPIRES_SOON_S = 7 * 86_400


class ClientCertificates(StrEnum):
    """Whether clients show a certificate of their own."""

    NONE = "none"
    #: Those that have one; it must be good.
    OPTIONAL = "optional"
    REQUIRED = "required"


class TlsVersion(StrEnum):
    """The oldest version that is spoken."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


_VERSIONS: Final = {
    TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}
_VERIFY: Final = {
    ClientCertificates.NONE: ssl.CERT_NONE,
    ClientCertificates.OPTIONAL: ssl.CERT_OPTIONAL,
    ClientCertificates.REQUIRED: ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What a listener speaks TLS with. The files are in PEM form."""

    #: The certificate, and after it those that lead to the root.
    certificate: str
    #: Its key; None: it is in the same file.
    key: str | None = None
    #: Of the key, where it is encrypted.
    password: str | None = field(default=None, repr=False)
    #: A file with the password, read when the key is.
    password_file: str | None = None
    client_certificates: ClientCertificates = ClientCertificates.NONE
    #: Who signs the certificates of clients.
    client_ca: str | None = None
    minimum_version: TlsVersion = TlsVersion.TLS_1_2
    #: For TLS 1.2, in OpenSSL's words; None: what Python thinks good.
    ciphers: str | None = None
    #: How long a client may take from its connection to the end of its handshake.
    handshake_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name, choices in (
            ("client_certificates", ClientCertificates),
            ("minimum_version", TlsVersion),
        ):
            try:
                object.__setattr__(self, name, choices(getattr(self, name)))
            except ValueError:
                listed = ", ".join(choices)
                raise ConfigurationError(
                    f"{name} must be one of {listed}, not {getattr(self, name)!r}"
                ) from None
        if self.password is not None and self.password_file is not None:
            raise ConfigurationError(
                "the key's password is given itself and by a file: leave out --tls-password or "
                "--tls-password-file"
            )
        if self.client_certificates is not ClientCertificates.NONE and self.client_ca is None:
            raise ConfigurationError(
                f"client certificates are {self.client_certificates}, and nobody is named who "
                "signs them: name the file of certificates with --tls-client-ca"
            )
        if self.client_certificates is ClientCertificates.NONE and self.client_ca is not None:
            # Who signs them is asked of nobody, and whoever wrote it may think otherwise.
            raise ConfigurationError(
                "--tls-client-ca says who signs the certificates of clients, and none is asked for "
                "one: say --tls-client-certificates required, or optional"
            )
        if not self.handshake_timeout_s > 0:
            raise ConfigurationError(
                f"--tls-handshake-timeout must be more than 0, not {self.handshake_timeout_s}"
            )


@dataclass(frozen=True, slots=True)
class Identity:
    """What one handshake is made with."""

    context: ssl.SSLContext
    #: The certificate that clients see.
    certificate: str
    #: The numbers that stand for cipher suites in TLS, by their names.
    cipher_numbers: dict[str, int]

    def extension(self, connection: Any) -> dict[str, Any]:
        """Return what ASGI's extension ``tls`` says of a connection.

        Args:
            connection: Its ``ssl_object``, after the handshake.
        """
        cipher = connection.cipher()
        return {
            "server_cert": self.certificate,
            "client_cert_chain": _chain_of(connection),
            "client_cert_name": _name_of(connection.getpeercert()),
            # A client whose certificate is not good gets no connection.
            "client_cert_error": None,
            "tls_version": _NUMBERS.get(connection.version()),
            "cipher_suite": self.cipher_numbers.get(cipher[0]) if cipher else None,
        }


class Credentials:
    """The identity of a listener, and how it is renewed.

    Args:
        tls: What to speak TLS with; its files are read at once.
        protocols: What is spoken on top of it, the best first: ``h2``, ``http/1.1``.

    Raises ConfigurationError for what can't be.
    """

    def __init__(self, tls: Tls, protocols: Iterable[str] = ("http/1.1",)) -> None:
        self.tls = tls
        self._protocols = list(protocols)
        #: For the handshakes to come.
        self.identity = self._load()

    def reload(self) -> bool:
        """Read the files anew, for the connections that come; say whether that could be done."""
        try:
            self.identity = self._load()
        except ConfigurationError as error:
            logger.error("the certificate is not renewed, the old one stays: %s", error)
            return False
        logger.info("the certificate %s is renewed", self.tls.certificate)
        return True

    def _load(self) -> Identity:
        context = _context(self.tls, self._protocols)
        _try(context, self.tls)
        _require_clients(context, self.tls)
        numbers = {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}
        return Identity(context, _first_certificate(self.tls.certificate), numbers)


_NUMBERS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


# Reading the files


def _context(tls: Tls, protocols: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.minimum_version]
    # Neither is of use to a client that means well (RFC 9325 §3.3, §3.5).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if tls.ciphers is not None:
        try:
            context.set_ciphers(tls.ciphers)
        except ssl.SSLError:
            raise ConfigurationError(
                f"--tls-ciphers {tls.ciphers!r} names no cipher that there is: write them in "
                "OpenSSL's words, as ECDHE+AESGCM:ECDHE+CHACHA20"
            ) from None
    _load_chain(context, tls)
    context.set_alpn_protocols(protocols)
    return context


def _load_chain(context: ssl.SSLContext, tls: Tls) -> None:
    for option, path in (("certificate", tls.certificate), ("key", tls.key)):
        if path is not None:
            _readable(option, path)
    key = f"--tls-key {tls.key}" if tls.key else f"--tls-certificate {tls.certificate}"

    def password() -> str:
        if (given := _password(tls)) is not None:
            return given
        # OpenSSL would ask whoever sits at the terminal.
        raise ConfigurationError(
            f"{key}: the key is encrypted: give its password by HEADRACE_TLS_PASSWORD or "
            "--tls-password-file"
        )

    try:
        context.load_cert_chain(tls.certificate, tls.key, password)
    except ssl.SSLError as error:
        raise ConfigurationError(_why(error, tls, key)) from None


def _why(error: ssl.SSLError, tls: Tls, key: str) -> str:
    certificate = f"--tls-certificate {tls.certificate}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} is not the key of {certificate}: name the two that were made together"
    if "ENCRYPTED" in _readable("key", tls.key or tls.certificate):
        # Python doesn't say more than that something in a PEM file is wrong.
        return f"{key}: the key can't be decrypted: the password is wrong"
    if not _has_certificate(tls.certificate):
        return f"{certificate} holds no certificate: it has to be in PEM form"
    if tls.key is None and "PRIVATE KEY-----" not in _readable("certificate", tls.certificate):
        return f"{certificate} holds no key: name the file that does with --tls-key"
    return f"{key} can't be used: it has to be a key in PEM form"


def _password(tls: Tls) -> str | None:
    if tls.password_file is None:
        return tls.password
    return _readable("password-file", tls.password_file).rstrip("\r\n")


def _readable(option: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"--tls-{option} {path} can't be read: {reason}") from None


_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def _has_certificate(path: str) -> bool:
    return _BEGIN in _readable("certificate", path)


def _first_certificate(path: str) -> str:
    text = _readable("certificate", path)
    start = text.index(_BEGIN)
    return text[start : text.index(_END, start) + len(_END)] + "\n"


def _require_clients(context: ssl.SSLContext, tls: Tls) -> None:
    if tls.client_ca is None:
        return
    _readable("client-ca", tls.client_ca)
    try:
        context.load_verify_locations(tls.client_ca)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--tls-client-ca {tls.client_ca} holds no certificate: {error.reason or error}; it "
            "has to be in PEM form"
        ) from None
    context.verify_mode = _VERIFY[tls.client_certificates]


def _try(context: ssl.SSLContext, tls: Tls) -> None:
    """Shake hands with ourselves, in memory: what fails here would fail for everybody."""
    visitor = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    visitor.check_hostname = False
    # It trusts the certificate itself, so that all else that is wrong with it comes to light.
    visitor.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    visitor.load_verify_locations(cadata=_first_certificate(tls.certificate))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = visitor.wrap_bio(to_client, to_server)
    certificate = f"--tls-certificate {tls.certificate}"
    try:
        # Each takes what the other has to say, until the one that ends last has it all.
        while not (_goes_on(client) & _goes_on(server)):
            pass
    except ssl.SSLCertVerificationError as error:
        logger.warning("%s: clients will refuse it: %s", certificate, error.verify_message)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{certificate}: no client can shake hands with it: {error.reason or error}; see "
            "whether --tls-ciphers has one for its kind of key"
        ) from None
    else:
        found = client.getpeercert() or {}
        ends = ssl.cert_time_to_seconds(str(found["notAfter"]))
        if ends - time.time() < EXPIRES_SOON_S:
            logger.warning("%s expires soon: %s", certificate, found["notAfter"])


def _goes_on(side: ssl.SSLObject) -> bool:
    """Go on with a handshake; say whether it is done."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


# What applications hear


def _chain_of(connection: Any) -> list[str]:
    """Return the certificates that a client has shown, its own first."""
    own = connection.getpeercert(binary_form=True)
    if own is None:
        chain = []  # Python 3.13.0 fails where there is none to show
    elif hasattr(connection, "get_unverified_chain"):  # Python 3.13
        chain = connection.get_unverified_chain()
    else:
        chain = [own]
    return [ssl.DER_cert_to_PEM_cert(each) for each in chain]


#: The short names of RFC 4514 §3 for those of OpenSSL; others stand as they are.
_SHORT: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
_ESCAPED: Final = re.compile(r'(^[ #]|[",+;<=>\\]| $)')


def _name_of(certificate: Any) -> str | None:
    """Return whose a verified certificate is, as RFC 4514 writes it; None: there is none."""
    if not certificate:
        return None
    # The last comes first (RFC 4514 §2.1).
    return ",".join(
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in names)
        for names in reversed(certificate["subject"])
    )


def _escaped(value: str) -> str:
    return _ESCAPED.sub(r"\\\1", value).replace("\0", "\\00")
