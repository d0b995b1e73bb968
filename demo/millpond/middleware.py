"""Response headers of the whole site."""

from django.conf import settings

__all__ = ["CONTENT_SECURITY_POLICY", "content_security_policy"]

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
