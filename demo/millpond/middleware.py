"""Response headers of the whole site, and the thread in which all of its middleware runs."""

from django.conf import settings

__all__ = ["CONTENT_SECURITY_POLICY", "content_security_policy", "in_one_thread"]

# Everything comes from this site, and nothing is inline: text that a user wrote can't become code.
# 'self' covers the WebSocket of the same host too.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def content_security_policy(get_response):
    """Name to the browser the only places from which a page may load anything."""

    def middleware(request):
        response = get_response(request)
        if not settings.DEBUG:  # Django's own error pages have their styles inline
            response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response

    return middleware


def in_one_thread(get_response):
    """Have all of a request's middleware run in one go, in one thread: this has to be the last.

    Under ASGI each of Django's own would run on the event loop, and each of its two halves go to a
    thread and back. Where the last can only be called synchronously, Django calls the others so,
    too.
    """

    def middleware(request):
        return get_response(request)

    return middleware
