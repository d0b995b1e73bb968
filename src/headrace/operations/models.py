"""What the admin needs to know the operations page by: a model without a table."""

from django.db import models
from django.utils.translation import gettext_lazy as _

__all__ = ["Operations"]


class Operations(models.Model):
    """The running server. It has no rows: a permission, and a place in the admin's index."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = (("close_connection", _("Can close connections")),)
        verbose_name = _("Operations")
        verbose_name_plural = _("Operations")

    def __str__(self) -> str:
        return str(self._meta.verbose_name)
