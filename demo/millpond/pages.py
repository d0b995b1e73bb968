"""Django's pages, each of them in one go in one thread."""

import django
from asgiref.sync import sync_to_async
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_started
from django.urls import set_script_prefix

__all__ = ["Pages"]


class Pages(ASGIHandler):
    """Django's handler, which goes to a thread once for each request.

    All middleware and all views of this site are synchronous. Django's own handler takes one step
    after another of such a request to a thread and back, half a dozen times: at each it waits for
    the event loop and for a thread, and holds the thread from the first to the last. It also
    listens, in a task of its own, for a client that leaves; a synchronous view can't be stopped.
    """

    def __init__(self) -> None:
        django.setup(set_prefix=False)  # before anything of Django's is used
        self.load_middleware(is_async=False)

    async def handle(self, scope, receive, send):
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        response = await sync_to_async(self.respond)(scope, body)
        try:
            await self.send_response(response, send)
        finally:
            if response.streaming:
                await sync_to_async(response.close)()

    def respond(self, scope, body):
        """Return the answer to a request, done with unless it is still to be read from."""
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=type(self), scope=scope)
        request, response = self.create_request(scope, body)
        if request is None:
            body.close()
        else:
            response = self.get_response(request)  # which has the request closed with it
        response._handler_class = type(self)  # noqa: SLF001 - Django has no other way to say who sends
        if not response.streaming:
            response.close()
        return response
