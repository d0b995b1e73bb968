"""A network that fails on demand."""

import socket
import threading

import pytest
from chaos.proxy import Proxy


@pytest.fixture
def echo():
    """The port of a server that sends back what it gets."""

    def serve(connection):
        with connection:
            while True:
                try:
                    data = connection.recv(4096)
                except OSError:
                    return
                if not data:
                    return
                connection.sendall(data)

    def listen():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    threads = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = threading.Thread(target=listen)
        listener.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        listener.join()
    for thread in threads:
        thread.join()


def connect(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_bytes_go_through(echo):
    with Proxy(echo) as proxy, connect(proxy) as client:
        client.sendall(b"one")
        assert client.recv(10) == b"one"


def test_what_is_held_comes_later(echo):
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.hold()
        client.sendall(b"one")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(10)
        proxy.release()
        client.settimeout(5)
        assert client.recv(10) == b"one"


def test_what_is_swallowed_is_gone_and_so_is_the_connection(echo):
    with Proxy(echo) as proxy, connect(proxy) as client:
        client.sendall(b"one")
        assert client.recv(10) == b"one"
        proxy.swallow()
        client.sendall(b"two")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(10)
        proxy.release()
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(10)


def test_a_cut_is_a_reset_and_who_comes_again_gets_through(echo):
    with Proxy(echo) as proxy:
        with connect(proxy) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                client.recv(10)
        with connect(proxy) as client:
            client.sendall(b"two")
            assert client.recv(10) == b"two"


def test_a_server_that_is_not_there(echo):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with Proxy(port) as proxy, connect(proxy) as client:
        assert client.recv(10) == b""
