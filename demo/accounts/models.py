"""Who writes in the rooms."""

from django.contrib.auth.models import AbstractUser
from django.db import models

__all__ = ["User"]


class User(AbstractUser):
    """An account, with the name and the colour that others see."""

    class Color(models.TextChoices):
        TEAL = "teal"
        BLUE = "blue"
        VIOLET = "violet"
        PLUM = "plum"
        ROSE = "rose"
        RUST = "rust"
        OCHRE = "ochre"
        MOSS = "moss"

    first_name = last_name = None
    display_name = models.CharField(
        max_length=40, blank=True, help_text="What others see. Your user name, if you leave it out."
    )
    color = models.CharField(max_length=8, choices=Color, default=Color.TEAL)
    # An account that anybody may use by a click; it has no password.
    open_to_all = models.BooleanField(default=False, editable=False)

    def __str__(self):
        return self.name

    def get_full_name(self):
        return self.name

    def get_short_name(self):
        return self.name

    @property
    def name(self) -> str:
        return self.display_name or self.username

    @property
    def initials(self) -> str:
        words = self.name.split()
        letters = words[0][0] + words[-1][0] if len(words) > 1 else self.name[:2]
        return letters.upper()

    def public(self) -> dict:
        """Return what everyone in a room may know about this user, ready for JSON."""
        return {
            "id": self.pk,
            "name": self.name,
            "initials": self.initials,
            "color": self.color,
        }

    @staticmethod
    def shown_by(field: str) -> list[str]:
        """Return the columns, behind a foreign key to a user, that say how it is shown."""
        return [f"{field}__{column}" for column in ("display_name", "username", "color")]
