"""A small Django project: views of every kind, as its ``urls``."""

import asyncio
import hashlib
import threading

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

events = []


def plain(request):
    assert threading.current_thread() is not threading.main_thread()
    return JsonResponse(
        {"path": request.path, "query": request.GET.get("q"), "host": request.get_host()}
    )


async def asynchronous(request):
    await asyncio.sleep(0)
    return HttpResponse(f"async {request.method}", headers={"X-View": "async"})


@csrf_exempt
def upload(request):
    uploaded = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in uploaded.chunks():
        digest.update(chunk)
    return JsonResponse(
        {"name": uploaded.name, "sha256": digest.hexdigest(), **request.POST.dict()}
    )


async def stream(request):
    async def lines():
        for number in range(100):
            yield f"{number}\n".encode() * 100
            await asyncio.sleep(0)

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def wait(request):
    events.append("waiting")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        events.append("cancelled")
        raise


async def endless(request):
    async def ticks():
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.005)
        finally:
            events.append("stream closed")

    return StreamingHttpResponse(ticks())


def broken(request):
    raise ZeroDivisionError


urlpatterns = [
    path("plain/", plain),
    path("async/", asynchronous),
    path("upload/", upload),
    path("stream/", stream),
    path("wait/", wait),
    path("endless/", endless),
    path("broken/", broken),
]
