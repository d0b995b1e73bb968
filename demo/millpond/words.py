"""What the scripts of the pages say, in one language: kept by browsers as static files are."""

from functools import cache
from hashlib import blake2b

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.utils.translation import override
from django.views.i18n import JavaScriptCatalog

__all__ = ["address", "words"]


@cache  # as Django keeps its own translations, until the process ends
def catalogue(language: str) -> tuple[str, bytes]:
    """Return the script of a language, and its version before it."""
    request = HttpRequest()
    request.method = "GET"
    with override(language):
        script = JavaScriptCatalog.as_view()(request).content
    return blake2b(script, digest_size=8).hexdigest(), script


def address(language: str) -> str:
    """Return where the words of a language are, as long as they are these."""
    return reverse("words", args=(language, catalogue(language)[0]))


def words(request, language, version):
    """Answer with the words of a language."""
    if language not in dict(settings.LANGUAGES):
        raise Http404
    current, script = catalogue(language)
    response = HttpResponse(script, content_type='text/javascript; charset="utf-8"')
    if version == current:
        patch_cache_control(response, public=True, max_age=31_536_000, immutable=True)
    else:
        patch_cache_control(response, no_cache=True)
    return response
