"""A page with a document: y-websocket's own messages, and who may send which.

The client is y-websocket as it is, so everything is said in its words: see ``wire.py``. It takes
the close codes from 4400 to 4499 for final and any other for a reason to come back, which is how
this site has them, too. What a page wrote while it was away it brings along when it comes.

From the page: what it has (it is sent what it lacks), what it wrote, where its cursor is. From the
server: what the page lacks, a question for what the server lacks (to editors), what others write,
who is there, and that something is not allowed.
"""

import logging
import time

from django.conf import settings

from documents import wire
from documents.groups import document_group
from documents.models import Document, Role
from documents.presence import shown
from documents.replica import FAILURES, Full, GivenUp, Incomplete, replicas
from headrace.db import database_sync_to_async
from headrace.exceptions import CloseCode
from headrace.generic.websocket import AsyncWebsocketConsumer
from live.consumers import GONE, LOGGED_OUT
from live.limits import Allowance

__all__ = [
    "ACCESS_CHANGED",
    "MALFORMED",
    "READ_ONLY",
    "TOO_LARGE",
    "TOO_MANY",
    "DocumentConsumer",
]

#: Close codes after which coming back by itself is of no use.
MALFORMED = 4400
READ_ONLY = 4403
ACCESS_CHANGED = 4410
TOO_LARGE = 4413
TOO_MANY = 4429

logger = logging.getLogger(__name__)

# So often a page is told that it may not write, or asked for what it has left out.
REFUSALS_BORNE = 10
INCOMPLETE_BORNE = 3

NOTHING = b"\0\0"  # an update with nothing in it


class TooMany(Exception):
    """More messages than anyone writes."""


class DocumentConsumer(AsyncWebsocketConsumer):
    """One page that shows a document."""

    replica = None
    #: What its user may do.
    role = None
    #: The Yjs client for which it speaks.
    client = None
    #: What it had when it came: it lacks at most what is new since.
    state = b"\0"
    refused = incomplete = 0
    #: Whether it was asked for what it has, and has not answered.
    is_asked = False
    is_ended = False

    async def connect(self):
        # A browser shows its page neither the status nor the body of a refused handshake, so the
        # refusal is told over the open connection.
        await self.accept()
        self.user = self.scope["user"]
        self.number = self.scope["url_route"]["kwargs"]["number"]
        self.allowance = Allowance(
            burst=settings.DOCUMENTS_BURST, per_second=settings.DOCUMENTS_PER_SECOND
        )
        if not self.user.is_authenticated:
            await self.end(LOGGED_OUT, "You are not logged in.")
            return
        self.role = await self.ask_role()
        if self.role is None:
            await self.end(GONE, "There is no such document, or it is not shared with you.")
            return
        self.replica = await replicas.enter(self.number, self.channel_name)
        # From here on it hears of everything; what was before, it is about to ask for.
        await self.channel_layer.group_add(document_group(self.number), self.channel_name)
        if self.role is Role.EDITOR:
            await self.ask()
        await self.replica.welcome(self.channel_name)

    async def ask(self):
        """Ask the page for all that it has and the document has not."""
        self.is_asked = True
        await self.send(bytes_data=wire.ask(self.replica.state()))

    async def disconnect(self, code):
        replica, self.replica = self.replica, None
        if replica is None:
            return
        try:
            for client, clock, state in replica.presence.left(self.channel_name):
                await replica.tell_of(
                    client, clock, state, user=self.user.pk, channel=self.channel_name
                )
        finally:
            await replicas.leave(replica, self.channel_name)

    def ask_role(self):
        return database_sync_to_async(Document.objects.role_of)(self.number, self.user)

    async def end(self, code, reason):
        """Close, once, and hear nothing more."""
        if not self.is_ended:
            self.is_ended = True
            await self.close(code, reason)

    # From the page

    async def receive(self, text_data=None, bytes_data=None):
        if self.is_ended:
            return
        if bytes_data is None:
            raise wire.Malformed("the y-protocols are binary")
        if len(bytes_data) > settings.DOCUMENTS_UPDATE_BYTES:
            raise Full
        await self.take(*wire.read(bytes_data))

    async def on_error(self, error, message):
        """Close with a code that says what is wrong, whichever handler found it."""
        match error:
            case wire.Malformed():
                # A reason has 123 bytes of UTF-8 at most (RFC 6455 §5.5).
                reason = f"Not understood: {error}.".encode()[:123].decode(errors="ignore")
                await self.end(MALFORMED, reason)
            case TooMany():
                await self.end(TOO_MANY, "Too many messages: connect again, and nothing is lost.")
            case Full():
                await self.end(TOO_LARGE, "Too large: this document has no room for it.")
            case GivenUp():
                self.is_ended = True  # it is closed already
            case Document.DoesNotExist():
                await self.end(GONE, "This document is gone.")
            case _ if isinstance(error, FAILURES):
                logger.warning("document %s: %s", self.number, error)
                await self.end(CloseCode.TRY_AGAIN_LATER, "This can't be done just now.")
            case _:
                raise error

    async def take(self, kind, data):
        if kind is wire.Kind.AWARENESS:
            # y-websocket passes on what it hears of others, too: that is not counted, nor read.
            entries = self.own(wire.read_awareness(data, only=self.client))
            if not entries:
                return
        if self.allowance.take(time.monotonic()):
            raise TooMany
        match kind:
            case wire.Kind.STATE_VECTOR:
                wire.read_state(data)
                self.state = data
                await self.bring_up_to_date()
            case wire.Kind.MISSING:
                self.is_asked = False
                await self.write(data)
            # What somebody types while the page comes back builds on what they wrote before, and
            # has overtaken it; it is in the answer, which was made after it.
            case wire.Kind.UPDATE if not self.is_asked:
                await self.write(data)
            case wire.Kind.AWARENESS:
                await self.be_present(entries)
            case wire.Kind.QUERY:
                await self.replica.welcome(self.channel_name)

    async def bring_up_to_date(self):
        # Something may have been kept, and its telling on its way here before the page was.
        await self.replica.refresh()
        await self.send(bytes_data=wire.missing(self.replica.lacking(self.state)))

    async def write(self, update):
        if update == NOTHING:
            return
        if self.role is not Role.EDITOR:
            self.refused += 1
            reason = f"You may read this document, not change it: {self.refused} refused."
            await self.send(bytes_data=wire.denied(reason))
            if self.refused == REFUSALS_BORNE:
                await self.end(READ_ONLY, reason)
            return
        try:
            await self.replica.store(update)
        except Incomplete:
            self.incomplete += 1
            if self.incomplete == INCOMPLETE_BORNE:
                raise wire.Malformed("updates build on others that never came") from None
            await self.ask()

    def own(self, entries):
        """Return what is said of the client for which this connection speaks."""
        if self.client is None:
            may_be, now = self.replica.presence.may_be, time.monotonic()
            free = (each for each, *_ in entries if may_be(each, self.user.pk, now))
            self.client = next(free, None)
        return [entry for entry in entries if entry[0] == self.client]

    async def be_present(self, entries):
        """Tell the others of this page: its cursor as it says, its name as the login says."""
        reads = self.role is Role.VIEWER
        for client, clock, state in entries:
            told = None if state is None else shown(state, self.user.public(), reads=reads)
            await self.replica.tell_of(
                client, clock, told, user=self.user.pk, channel=self.channel_name
            )

    # From the channel layer

    async def document_access(self, event):
        """See whether the page may still do what it could."""
        role = await self.ask_role()
        if role is None:
            await self.end(GONE, "This document is no longer shared with you.")
        elif role is not self.role:
            await self.end(ACCESS_CHANGED, "What you may do here has changed.")

    async def layer_gap(self, event):
        """Send what is new since the page came: some of it may have been lost on its way."""
        if self.replica is not None and not self.is_ended:
            await self.bring_up_to_date()
            await self.replica.welcome(self.channel_name)
