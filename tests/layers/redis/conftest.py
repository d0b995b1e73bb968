"""Servers for the tests of the Redis layer. Those of a session are shared: use a prefix each."""

import contextlib
import datetime
import ipaddress
import itertools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headrace.layers.redis import RedisChannelLayer

from .servers import Cluster, RedisServer, SentinelSet

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def sentinels():
    with SentinelSet() as sentinels:
        yield sentinels


@pytest.fixture(scope="session")
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def own_server():
    """A server that the test may break."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def own_sentinels():
    with SentinelSet() as sentinels:
        yield sentinels


@pytest.fixture
def own_cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def prefix():
    return f"test{next(_numbers)}"


@pytest.fixture
async def layer_of(prefix):
    """Make layers that are closed after the test. Two of them are two processes."""
    async with contextlib.AsyncExitStack() as stack:

        def layer_of(servers, **config):
            if servers is not None:
                found = servers.hosts if hasattr(servers, "hosts") else [servers.url]
                config.setdefault("hosts", found)
            layer = RedisChannelLayer(**{"prefix": prefix, **config})
            stack.push_async_callback(layer.close)
            return layer

        yield layer_of


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A key and a certificate for 127.0.0.1, as paths."""
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("tls")
    paths = directory / "key.pem", directory / "cert.pem"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    paths[1].write_bytes(certificate.public_bytes(pem))
    return paths
