"""CSS and JavaScript, served by the application itself: the demo has no web server in front."""

import re

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.exceptions import SuspiciousOperation
from django.http import Http404, HttpResponse

__all__ = ["StaticFiles"]


class StaticFiles(ASGIStaticFilesHandler):
    """Django's handler, which asks for no ``collectstatic``; and browsers ask if a file changed."""

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
