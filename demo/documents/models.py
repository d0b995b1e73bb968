"""Documents, who may do what with them, and what they say: a snapshot and the updates since.

The updates of a document are numbered, without a gap and in the order of their commits: the row
of the document is locked first. They are only ever added, and now and then folded into the
snapshot. A process that knows everything up to a number asks for what came after it, and has
all: an update that is applied twice, or in another order, does no harm to a Yjs document.
"""

from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from pycrdt import Doc, get_update

from documents import wire
from documents.groups import document_group
from documents.presence import TEXT
from headrace.db import group_send_on_commit
from notifications import notify

__all__ = ["TEXT", "Document", "Role", "Share", "Update", "is_incomplete"]


class Role(models.TextChoices):
    EDITOR = "editor", _("may edit")
    VIEWER = "viewer", _("may read")


class DocumentQuerySet(models.QuerySet):
    def open_to(self, user):
        """Return what a user may at least read."""
        shared = Share.objects.filter(user=user).values("document")
        return self.filter(Q(owner=user) | ~Q(everyone="") | Q(pk__in=shared))

    def role_of(self, number, user) -> Role | None:
        """Return what a user may do with a document: None if nothing, or if there is none."""
        document = self.filter(pk=number).defer("snapshot").first()
        return document and document.role_of(user)


class Document(models.Model):
    """A text that several people write."""

    title = models.CharField(max_length=80)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="documents")
    # What those may do whom it is not shared with by name.
    everyone = models.CharField(max_length=6, choices=Role, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    changed_at = models.DateTimeField(default=timezone.now, editable=False)
    # Everything up to a number, as one update.
    snapshot = models.BinaryField(default=b"")
    snapshot_number = models.PositiveBigIntegerField(default=0, editable=False)
    last_number = models.PositiveBigIntegerField(default=0, editable=False)
    # Bytes of the snapshot and the updates since.
    size = models.PositiveIntegerField(default=0, editable=False)

    objects = DocumentQuerySet.as_manager()

    class Meta:
        ordering = ("-changed_at", "-pk")

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("document", args=(self.pk,))

    def role_of(self, user) -> Role | None:
        if user.pk == self.owner_id:
            return Role.EDITOR
        share = self.shares.filter(user=user).first()
        role = share.role if share else self.everyone
        return Role(role) if role else None

    def tell_access_on_commit(self) -> None:
        """Make every open page ask again what its reader may do."""
        group_send_on_commit(document_group(self.pk), {"type": "document.access"})

    def share(self, user, role: str) -> None:
        """Let somebody read or write it, and tell them."""
        with transaction.atomic():
            _, is_new = Share.objects.update_or_create(
                document=self, user=user, defaults={"role": role}
            )
            if is_new:
                notify(
                    [user], "document", f"{self.owner.name} · {self.title}", self.get_absolute_url()
                )
            self.tell_access_on_commit()

    def unshare(self, user_id: int) -> None:
        with transaction.atomic():
            if self.shares.filter(user=user_id).delete()[0]:
                self.tell_access_on_commit()

    def compact(self) -> None:
        """Fold the updates into the snapshot. Called under the lock of this row."""
        updates = list(self.updates.order_by("number").values_list("number", "data"))
        # Threads: this is no thread of the event loop, and the collector may run in another.
        folded = Doc(allow_multithreading=True)
        pieces = [self.snapshot, *(data for _, data in updates)]
        for piece in filter(None, pieces):
            folded.apply_update(bytes(piece))
        state = folded.get_state()
        if any(is_incomplete(bytes(data), state) for _, data in updates):
            return  # a piece waits for one that nobody has: it stays as it is, and nothing is lost
        self.snapshot = folded.get_update()
        self.snapshot_number = updates[-1][0]
        self.size = len(self.snapshot)
        self.save(update_fields=["snapshot", "snapshot_number", "size"])
        self.updates.filter(number__lte=self.snapshot_number).delete()


class Share(models.Model):
    """Somebody who may read or write a document of somebody else."""

    document = models.ForeignKey(Document, models.CASCADE, related_name="shares")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    role = models.CharField(max_length=6, choices=Role)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=("document", "user"), name="shared_once_with_each"),
        )

    def __str__(self):
        return f"{self.user}: {self.role}"


class UpdateManager(models.Manager):
    def append(self, number: int, updates: list[bytes]) -> tuple[int, int]:
        """Keep updates of a document; return the number of the last, and the document's size.

        Raises Document.DoesNotExist.
        """
        with transaction.atomic():
            # The update locks the document's row first, so that numbers are given one by one.
            documents = Document.objects.filter(pk=number)
            documents.update(
                last_number=F("last_number") + len(updates),
                size=F("size") + sum(map(len, updates)),
                changed_at=timezone.now(),
            )
            last, size = documents.values_list("last_number", "size").get()
            first = last - len(updates) + 1
            self.bulk_create(
                Update(document_id=number, number=first + index, data=data)
                for index, data in enumerate(updates)
            )
        return last, size

    def since(self, number: int, known: int) -> tuple[list[bytes], int, int, int]:
        """Return what came after a number.

        That is: updates, the number up to which they are all, that of the snapshot, and the size
        of the whole. Raises Document.DoesNotExist.
        """
        # The updates first: what is folded into the snapshot between the two queries is read
        # twice, and the other way round it would be missed.
        rows = list(
            self.filter(document=number, number__gt=known)
            .order_by("number")
            .values_list("number", "data")
        )
        fields = ("snapshot", "snapshot_number", "size")
        snapshot, folded, size = Document.objects.values_list(*fields).get(pk=number)
        updates = [bytes(data) for _, data in rows]  # of some databases they are memoryviews
        if folded > known:
            updates.insert(0, bytes(snapshot))
        return updates, max(rows[-1][0] if rows else 0, folded, known), folded, size

    def compact(self, number: int, *, beyond: int) -> tuple[int, int] | None:
        """Fold the updates into the snapshot if there are so many.

        Returns the number of the snapshot and the size of the whole. Two processes that do this
        at once do it one after the other, and the second finds nothing to do. An update that
        is added meanwhile waits for the lock, and is no part of it.
        """
        with transaction.atomic():
            document = Document.objects.select_for_update().filter(pk=number).first()
            if document is None:
                return None
            if document.last_number - document.snapshot_number > beyond:
                document.compact()
            return document.snapshot_number, document.size


class Update(models.Model):
    """Something that somebody wrote or took away: an update of Yjs, as it came."""

    document = models.ForeignKey(
        Document, models.CASCADE, related_name="updates", db_index=False, editable=False
    )
    number = models.PositiveBigIntegerField(editable=False)
    data = models.BinaryField()

    objects = UpdateManager()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("document", "number"), name="update_number_once"),
        )

    def __str__(self):
        return f"{self.document_id}/{self.number}"


def is_incomplete(update: bytes, state: bytes) -> bool:
    """Tell whether a part of an update waits for others, where it was applied to this state.

    Yjs keeps such a part aside, and a snapshot doesn't hold it.
    """
    deletions = wire.read_deletions(get_update(update, state))
    if deletions is None:
        return True
    known = wire.read_state(state)
    return any(end > known.get(client, 0) for client, end in deletions)
