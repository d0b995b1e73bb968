"""The pages: the list of documents, one document with its editor, and whom it is shared with."""

import secrets

from django.db import transaction
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from documents.forms import DocumentForm, EveryoneForm, ShareForm
from documents.groups import document_group
from documents.models import Document, Role
from headrace.db import group_send_on_commit
from live.consumers import GONE
from millpond.middleware import CONTENT_SECURITY_POLICY

__all__ = ["delete", "document", "documents", "everyone", "share", "unshare"]


def documents(request):
    """Show what one may read, and take a new document."""
    form = DocumentForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.instance.owner = request.user
        return redirect(form.save())
    found = Document.objects.open_to(request.user).select_related("owner").defer("snapshot")
    return render(request, "documents/documents.html", {"form": form, "documents": found})


def document(request, number):
    """Show a document. What it says comes over the WebSocket."""
    return page(request, found(request, number))


def found(request, number, *, own=False):
    """Return a document that the user may read, or owns; else there is none."""
    open_to = Document.objects.open_to(request.user).select_related("owner").defer("snapshot")
    if own:
        open_to = open_to.filter(owner=request.user)
    return get_object_or_404(open_to, pk=number)


def page(request, here, form=None):
    role = here.role_of(request.user)
    nonce = secrets.token_urlsafe(16)
    response = render(
        request,
        "documents/document.html",
        {
            "document": here,
            "may_edit": role is Role.EDITOR,
            "is_owner": here.owner_id == request.user.pk,
            "shares": here.shares.select_related("user"),
            "share_form": form or ShareForm(document=here),
            "everyone_form": EveryoneForm(instance=here),
            "nonce": nonce,
        },
    )
    # CodeMirror writes its styles into an element, for which it is given the nonce; the colours of
    # the cursors are attributes. Scripts come from files, here as everywhere.
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.replace(
        "style-src 'self'", f"style-src 'self' 'nonce-{nonce}'; style-src-attr 'unsafe-inline'"
    )
    return response


@require_POST
def share(request, number):
    """Share a document with somebody, or change what they may do."""
    here = found(request, number, own=True)
    form = ShareForm(request.POST, document=here)
    if not form.is_valid():
        return page(request, here, form)
    here.share(form.cleaned_data["username"], form.cleaned_data["role"])
    return redirect(f"{here.get_absolute_url()}#sharing")


@require_POST
def unshare(request, number, user):
    """Share it with somebody no longer."""
    here = found(request, number, own=True)
    here.unshare(user)
    return redirect(f"{here.get_absolute_url()}#sharing")


@require_POST
def everyone(request, number):
    """Say what everybody else may do."""
    here = found(request, number, own=True)
    form = EveryoneForm(request.POST, instance=here)
    if form.is_valid():
        with transaction.atomic():
            here.save(update_fields=["everyone"])
            here.tell_access_on_commit()
    return redirect(f"{here.get_absolute_url()}#sharing")


@require_POST
def delete(request, number):
    """Do away with a document; whoever has it open is told."""
    here = found(request, number, own=True)
    with transaction.atomic():
        group_send_on_commit(
            document_group(here.pk),
            {"type": "websocket.close", "code": GONE, "reason": "This document is gone."},
        )
        here.delete()
    return redirect("documents")
