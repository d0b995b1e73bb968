"""The pages: the list of rooms, one room, a new room, a new conversation; and images.

A room's page arrives complete, with its last messages; the scripts then keep it up to date.
"""

from datetime import timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Q
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.cache import get_conditional_response, patch_cache_control
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_POST

from chat import actions
from chat.forms import RoomForm
from chat.images import CONTENT_TYPE, picture_of, too_large
from chat.models import Message, Room
from live.limits import Refused, text_of, uuid_of
from millpond.pieces import pieces

__all__ = ["converse", "image", "new_conversation", "new_room", "room", "rooms", "upload"]

PEOPLE = 60
# What a form adds to the image in it.
FORM_BYTES = 64_000

STATUS = {"too_large": 413, "rate": 429, "closed": 403, "muted": 403}


def rooms(request):
    """Show every room, and how much is unread in each."""
    return render(
        request, "chat/rooms.html", {"rooms": Room.objects.list_with_latest(request.user)}
    )


def room(request, slug):
    """Show a room with its last messages."""
    # The room first: its page asks for whatever changes after that.
    rooms = Room.objects.list_for(request.user)
    here = next((each for each in rooms if each.slug == slug), None)
    if here is None:
        raise Http404
    rows = Message.objects.last_of(here)
    authored = Message.objects.select_related("author", "room")
    return render(
        request,
        "chat/room.html",
        {
            "room": here,
            "rooms": rooms,
            "page": pieces("chat/_message.html", "message", rows, authored.in_bulk),
            "has_older": bool(rows) and rows[0][1] > 1,
            "moderator": actions.may_moderate(request.user, here),
            "limit": settings.CHAT_MESSAGE_LENGTH,
            "image_limit": settings.CHAT_IMAGE_BYTES,
        },
    )


def new_room(request):
    """Open a room, and tell every list of rooms."""
    form = RoomForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        return redirect(actions.open_room(form.save(commit=False), request.user))
    return render(
        request,
        "chat/new_room.html",
        {"form": form, "rooms": Room.objects.list_for(request.user)},
    )


@require_GET
def new_conversation(request):
    """Show with whom one may talk."""
    asked = " ".join(request.GET.get("q", "").split())[:40].replace("\x00", "")
    people = get_user_model().objects.filter(is_active=True).exclude(pk=request.user.pk)
    if asked:
        people = people.filter(Q(display_name__icontains=asked) | Q(username__icontains=asked))
    return render(
        request,
        "chat/new_conversation.html",
        {
            "asked": asked,
            "people": people.order_by("display_name", "username")[:PEOPLE],
            "rooms": Room.objects.list_for(request.user),
        },
    )


@require_POST
def converse(request, user_id):
    """Go to the conversation with somebody, which begins now if it hasn't."""
    others = get_user_model().objects.filter(is_active=True).exclude(pk=request.user.pk)
    return redirect(actions.converse(request.user, get_object_or_404(others, pk=user_id)))


@csrf_exempt
@require_POST
def upload(request, slug):
    """Post a message with an image.

    What is too large is refused before anything is read of it: the check for forgery, which
    reads the form, comes after that of the size.
    """
    if int(request.META.get("CONTENT_LENGTH") or 0) > settings.CHAT_IMAGE_BYTES + FORM_BYTES:
        return refusal(too_large())
    return post_image(request, slug)


@csrf_protect
def post_image(request, slug):
    here = get_object_or_404(Room.objects.readable_by(request.user), slug=slug)
    try:
        file = request.FILES.get("image")
        if file is None:
            raise Refused("no_image", "Choose an image first.")
        client_id = uuid_of(request.POST.get("client_id"))
        text = request.POST.get("text", "").strip()
        if text:
            text = text_of(text, length=settings.CHAT_MESSAGE_LENGTH)
        # Before the work, and once more when it is kept.
        actions.require_voice(here, request.user)
        require_patience(request.user)
        message, _ = actions.post(
            here, request.user, client_id=client_id, text=text, image=picture_of(file)
        )
    except Refused as refused:
        return refusal(refused)
    except Room.DoesNotExist:
        raise Http404 from None
    return JsonResponse({"message": message.public()})


def require_patience(user):
    """Raise :class:`Refused` if a user has posted enough images for a minute, wherever it was."""
    since = timezone.now() - timedelta(minutes=1)
    recent = Message.objects.filter(author=user, sent_at__gt=since).exclude(image_width=0)
    if recent.count() >= settings.CHAT_IMAGES_PER_MINUTE:
        raise Refused("rate", "Those were many images. Wait a minute.", retry_after_s=60)


def refusal(refused):
    return JsonResponse(
        {"code": refused.code, "text": str(refused), **refused.details},
        status=STATUS.get(refused.code, 400),
    )


@require_GET
def image(request, slug, number):
    """Serve an image to those who may read its room."""
    message = get_object_or_404(
        Message.objects.exclude(image=""),
        room__in=Room.objects.readable_by(request.user).filter(slug=slug),
        number=number,
    )
    etag = f'"{message.image.name}"'
    # A browser asks each time, for it may be another's by then.
    response = get_conditional_response(request, etag=etag) or file_response(message.image)
    response.headers["ETag"] = etag
    patch_cache_control(response, private=True, no_cache=True)
    return response


def file_response(image):
    with image.open("rb") as file:
        response = HttpResponse(file.read(), content_type=CONTENT_TYPE)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
