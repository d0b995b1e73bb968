"""The page, and the feed as Ajax polling and long polling: two views, each one request."""

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from live.limits import Refused
from polling.consumers import status_of, visitors
from polling.feed import RATES, feed
from polling.order import Order

__all__ = ["page", "poll", "wait"]

INTERVALS_MS = (100, 200, 500, 1000, 2000, 5000)


@require_safe
def page(request):
    """Show the four ways, none of them begun."""
    choices = {"rates": RATES, "intervals": INTERVALS_MS, "waits_s": settings.POLLING_WAIT_S}
    return render(request, "polling/polling.html", choices)


@never_cache
@require_safe
async def poll(request):
    """Answer with what there is after a number, be it nothing."""
    return await answer(request)


@never_cache
@require_safe
async def wait(request):
    """Answer when there is something after a number, or when the deadline has come."""
    return await answer(request, patience_s=settings.POLLING_WAIT_S)


async def answer(request, patience_s=0.0):
    user = await request.auser()
    try:
        order = Order.of(request.GET)
        visitors.ask(user.pk)
        with visitors.open(user.pk):
            async with feed.looking():
                if order.after is None:
                    return listed([], feed.last, missed=False)
                messages = feed.since(order.after, order.every)
                if patience_s and not messages:
                    messages = await feed.wait(order.after, order.every, patience_s)
                return listed(messages, order.after, missed=feed.has_missed(order.after))
    except Refused as refused:
        body = {"code": refused.code, "text": str(refused), **refused.details}
        response = JsonResponse(body, status=status_of(refused))
        if "retry_after_s" in refused.details:
            response.headers["Retry-After"] = str(max(1, round(refused.details["retry_after_s"])))
        return response


def listed(messages, after, *, missed):
    last = messages[-1].number if messages else after
    # The text of a message is JSON already, and the same in all four ways.
    body = (
        f'{{"last": {last}, "missed": {str(missed).lower()}, '
        f'"messages": [{", ".join(message.text for message in messages)}]}}'
    )
    return HttpResponse(body, content_type="application/json")
