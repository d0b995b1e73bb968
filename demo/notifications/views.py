"""The pages: the board, a post with its comments, and all that one was told."""

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count
from django.http import HttpResponseBadRequest
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from millpond.pieces import pieces
from notifications.forms import CommentForm, PostForm
from notifications.models import Notification, Post

__all__ = ["board", "follow", "inbox", "notification", "post"]

PER_PAGE = 20


def board(request):
    """Show the posts, and take a new one."""
    form = PostForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.instance.author = request.user
        return redirect(form.save())
    posts = Post.objects.select_related("author").annotate(answers=Count("comments"))
    posts = posts.order_by("-pk")  # the order of Meta doesn't hold where there is a GROUP BY
    return render(
        request,
        "notifications/board.html",
        {
            "form": form,
            "page": Paginator(posts, PER_PAGE).get_page(request.GET.get("page")),
            "followed": set(request.user.followed_posts.values_list("pk", flat=True)),
        },
    )


def post(request, number):
    """Show a post, and take a comment: for good, or to see what a rollback does."""
    here = get_object_or_404(Post.objects.select_related("author"), pk=number)
    form = CommentForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            form.instance.post, form.instance.author = here, request.user
            comment = form.save()
            if "roll_back" in request.POST:
                transaction.set_rollback(True)
                messages.info(request, _("Saved, and rolled back: nobody was told."))
                return redirect(here)
        return redirect(comment)
    return render(
        request,
        "notifications/post.html",
        {
            "post": here,
            "comments": pieces(
                "notifications/_comment.html",
                "comment",
                here.comments.values_list("pk", "text", *get_user_model().shown_by("author")),
                here.comments.select_related("author").in_bulk,
            ),
            "follows": here.followers.contains(request.user),
            "form": form,
        },
    )


@require_POST
def follow(request, number):
    """Follow a post, or no longer."""
    here = get_object_or_404(Post, pk=number)
    if request.POST.get("follow") == "yes":
        here.followers.add(request.user)
    else:
        here.followers.remove(request.user)
    return redirect(here)


def inbox(request):
    """Show everything that one was told, and mark it as read."""
    if request.method == "POST":
        up_to = request.POST.get("up_to", "")
        if not (up_to.isascii() and up_to.isdigit() and len(up_to) < 16):
            return HttpResponseBadRequest(_("up_to is the number of a notification."))
        Notification.objects.mark_all_read(request.user, int(up_to))
        return redirect("notifications")
    told = Paginator(request.user.notifications.all(), PER_PAGE)
    return render(
        request, "notifications/inbox.html", {"page": told.get_page(request.GET.get("page"))}
    )


@require_GET
def notification(request, number):
    """Go to where a notification leads: with that it is read."""
    told = get_object_or_404(request.user.notifications, pk=number)
    Notification.objects.mark_read(request.user, told.pk)
    return redirect(told.url or "notifications")
