"""What the page's scripts write, in the language of who looks at it."""

from typing import Any

from django.utils.translation import gettext as _

__all__ = ["words"]


def words() -> dict[str, Any]:
    """Return the texts by name; ``{name}`` in one stands for a value."""
    return {
        # The page's state
        "connecting": _("Connecting …"),
        "live": _("Live"),
        "live_process": _("Live, this process alone"),
        "offline": _("Offline: the connection is lost. Trying again in {seconds} s."),
        "still_offline": _(
            "If this lasts, reload the page: your login may have ended, or the server is down."
        ),
        "trouble": _("The server does not say what it is doing."),
        "logged_out": _("Offline: your login has ended. Log in again and reload the page."),
        "forbidden": _("Offline: you may not see this page any more."),
        "no_socket": _("The page could not open its WebSocket."),
        "no_socket_help": _(
            "The application needs a server that speaks WebSocket (headrace serve), and the "
            "routes of headrace.operations.routing in its asgi.py; the address of this page must "
            "be one that ALLOWED_HOSTS has."
        ),
        "no_server": _(
            "This application is not run by “headrace serve”: there are no figures of a server, "
            "no connections and no workers, only what this one process counts itself."
        ),
        # What is shown
        "connections": _("Connections"),
        "websockets": _("WebSockets"),
        "http": _("HTTP"),
        "messages_in": _("Messages in / s"),
        "messages_out": _("Messages out / s"),
        "requests": _("Requests / s"),
        "handshakes": _("Handshakes / s"),
        "lag": _("Lag of the loop"),
        "cpu": _("CPU"),
        "memory": _("Memory"),
        "messages_a_second": _("Messages a second"),
        "bytes_a_second": _("Bytes a second"),
        "asked_a_second": _("Asked for, a second"),
        "requests_plot": _("requests"),
        "handshakes_plot": _("handshakes"),
        "refused_plot": _("refused"),
        "refused_rate": _("Refused / s"),
        "in": _("in"),
        "out": _("out"),
        "longest": _("Longest"),
        "all_workers": _("all workers"),
        "workers": _("Workers"),
        "worker": _("Worker"),
        "stages": {"leaving": _("leaving"), "starting": _("starting")},
        "pid": _("Process"),
        "age": _("Age"),
        "descriptors": _("Descriptors"),
        "tasks": _("Tasks"),
        "threads": _("Threads"),
        "restarts": _("Restarts"),
        "groups": _("Largest groups"),
        "group": _("Group"),
        "members": _("Members"),
        "handlers": _("Slowest handlers"),
        "consumer": _("Consumer"),
        "handler": _("Handler"),
        "calls": _("Calls"),
        "mean": _("Mean"),
        "refused": _("Refused, by reason"),
        "reason": _("Reason"),
        "dropped": _("Dropped and missed"),
        "policy": _("What"),
        "total": _("In all"),
        "per_second": _("A second"),
        "figure": _("Figure"),
        "value": _("Value"),
        "counters": _("Every counter and gauge"),
        "name": _("Name"),
        "labels": _("Labels"),
        "nothing": _("Nothing yet."),
        # The table of connections
        "id": _("Id"),
        "protocol": _("Protocol"),
        "peer": _("Address"),
        "path": _("Path"),
        "user": _("User"),
        "received": _("Received"),
        "sent": _("Sent"),
        "inbox": _("Inbox"),
        "waiting": _("Waiting"),
        "close": _("Close"),
        "close_which": _("Close the connection {connection}"),
        "closing": _("Closing {connection} …"),
        "closed": _("Closed {connection} with {code}."),
        "place": _("Page {page} of {pages}, {matching} connections"),
        "place_partial": _(
            "Page {page} of {pages}, {matching} connections among the first {listed}"
        ),
    }
