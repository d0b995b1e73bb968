"""CSS and JavaScript, served by the application itself: the demo has no web server in front."""

import io
import re

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpResponse

from millpond.versions import version

__all__ = ["StaticFiles"]


class StaticFiles(ASGIStaticFilesHandler):
    """Django's handler, which asks for no ``collectstatic``; browsers keep what has a version."""

    def __init__(self, application):
        super().__init__(application)
        #: By their paths, answers that stay as they are until a file is changed.
        self._ready: dict[str, tuple[dict, dict]] = {}
        self._version = ""

    async def __call__(self, scope, receive, send):
        """Answer at once, on the event loop.

        Django starts a thread for each request, and waits for its end: that costs several times
        what there is to do for a small file, and a page asks for ten.
        """
        if scope["type"] != "http" or not self._should_handle(path := scope["path"]):
            await self.application(scope, receive, send)
            return
        if self._version != version.current():
            self._version = version.current()
            self._ready.clear()
        is_whole = scope["method"] == "GET" and all(
            name != b"range" for name, _ in scope["headers"]
        )
        messages = self._ready.get(path) if is_whole else None
        if messages is None:
            try:
                response = self.serve(ASGIRequest(scope, io.BytesIO()))
            except Http404:
                # The page that says so has its queries.
                await super().__call__(scope, receive, send)
                return
            headers = [(name.encode(), value.encode("latin-1")) for name, value in response.items()]
            status = response.status_code
            messages = (
                {"type": "http.response.start", "status": status, "headers": headers},
                {"type": "http.response.body", "body": response.content},
            )
            if is_whole and status == 200 and "immutable" in response.headers["Cache-Control"]:
                self._ready[path] = messages
        for message in messages:
            await send(message)

    def serve(self, request):
        try:
            response = super().serve(request)
        except SuspiciousOperation:  # a path that climbs out of the folder
            raise Http404 from None
        if response.streaming:
            # The files are small: whole in memory they need no asynchronous reading from disk.
            whole = HttpResponse(response.getvalue(), headers=dict(response.headers))
            response.close()
            response = whole
        if version.kept(self.file_path(request.path)):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        else:
            response.headers["Cache-Control"] = "no-cache"  # keep it, and ask each time: 304
        response.headers["X-Content-Type-Options"] = "nosniff"
        if response.status_code == 200:
            serve_a_part(request, response)
        return response


def serve_a_part(request, response):
    """Leave of a whole file the range that was asked for: else a film can't be wound.

    RFC 9110 §14.2: whoever doesn't understand a range, or several of them, sends everything.
    """
    response.headers["Accept-Ranges"] = "bytes"
    asked = re.fullmatch("bytes=([0-9]{1,15})-([0-9]{0,15})", request.headers.get("Range", ""))
    version = response.headers.get("Last-Modified")
    if asked is None or request.headers.get("If-Range", version) != version:
        return
    size = len(response.content)
    begin = int(asked[1])
    end = min(int(asked[2] or size), size - 1)
    if begin > end:
        response.status_code = 416
        response.headers["Content-Range"] = f"bytes */{size}"
        response.content = b""
    else:
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
        response.content = response.content[begin : end + 1]
    response.headers["Content-Length"] = str(len(response.content))
