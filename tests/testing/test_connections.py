import threading

import pytest
from django.core.signals import request_started
from django.db import close_old_connections, connection, connections
from django.test import TestCase

from headrace.testing.connections import ThreadsConnections, share_connections, spare_transactions

pytestmark = pytest.mark.django_db(transaction=True)


def in_a_thread(function):
    """Call it in a thread, which has ended when this returns."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(function()))
    thread.start()
    thread.join()
    return outcome[0]


def connect():
    connections["default"].ensure_connection()
    return connections["default"]


def test_those_of_other_threads_are_closed():
    watched = ThreadsConnections()
    watched.watch()
    first = in_a_thread(connect)
    assert list(watched) == [first]
    second = in_a_thread(connect)
    assert list(watched) == [second], "what a thread that has ended left is closed by then"
    assert first.connection is None
    watched.close()
    assert second.connection is None
    assert list(watched) == []
    third = in_a_thread(connect)
    assert third.connection is not None, "nobody watches any more"
    third.inc_thread_sharing()
    third.connection.close()


def test_a_connection_that_is_opened_twice_is_kept_once():
    def reconnect():
        connect().connection.close()
        connections["default"].connection = None
        connect()
        return list(watched)

    watched = ThreadsConnections()
    watched.watch()
    assert len(in_a_thread(reconnect)) == 1
    watched.close()


def test_the_tests_own_stays_open():
    watched = ThreadsConnections()
    connection.ensure_connection()
    here = connection.connection
    watched.watch()
    connection.connect()
    watched.close()
    assert connection.connection is not None
    here.close()


def test_a_thread_shares_the_connection_of_the_test():
    main = connections["default"]
    with share_connections():
        assert in_a_thread(lambda: connections["default"]) is main
        assert not hasattr(connections._connections, "another")
    other = in_a_thread(lambda: connections["default"])
    assert other is not main


class InATransaction(TestCase):
    def test_requests_close_nothing(self):
        connection.close_at = 0.0
        before = connection.connection
        with spare_transactions(), spare_transactions():
            request_started.send(None)
            assert not request_started.disconnect(close_old_connections)
            assert connection.connection is before
        assert request_started.disconnect(close_old_connections)
        request_started.connect(close_old_connections)
        connection.close_at = None
