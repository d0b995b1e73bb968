"""What the page for a new room asks for."""

from django import forms

from chat.models import Room

__all__ = ["RoomForm"]


class RoomForm(forms.ModelForm):
    """A new room."""

    class Meta:
        model = Room
        fields = ("name", "topic")
        labels = {"topic": "What is it about?"}
        help_texts = {"topic": "One line, shown under the name."}

    def clean_name(self):
        name = " ".join(self.cleaned_data["name"].split())
        if not name.isprintable():
            raise forms.ValidationError("A name is made of letters that can be seen.")
        if Room.objects.filter(name__iexact=name).exists():
            raise forms.ValidationError(f"There is a room called “{name}” already.")
        return name
