"""What the page for a new room asks for."""

from django import forms
from django.utils.translation import gettext_lazy as _

from chat.models import Room

__all__ = ["RoomForm"]


class RoomForm(forms.ModelForm):
    """A new public room."""

    class Meta:
        model = Room
        fields = ("name", "topic")
        labels = {"name": _("Name"), "topic": _("What is it about?")}
        help_texts = {"topic": _("One line, shown under the name.")}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["name"].required = True  # only a conversation has none

    def clean_name(self):
        name = " ".join(self.cleaned_data["name"].split())
        if not name.isprintable():
            raise forms.ValidationError(_("A name is made of letters that can be seen."))
        if Room.objects.public().filter(name__iexact=name).exists():
            raise forms.ValidationError(
                _("There is a room called “%(name)s” already."), params={"name": name}
            )
        return name
