"""CSS and JavaScript, served by the application itself: the demo has no web server in front."""

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
        return response
