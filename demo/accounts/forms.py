"""What the account pages ask for."""

import random

from django import forms
from django.contrib.auth.forms import AuthenticationForm, UserCreationForm

from accounts.models import User

__all__ = ["LoginForm", "SignUpForm"]


class LoginForm(AuthenticationForm):
    """Name and password. It doesn't take the focus: most come in by a click, above it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["username"].widget.attrs.pop("autofocus")


class SignUpForm(UserCreationForm):
    """A new account; its colour is drawn by lot."""

    class Meta:
        model = User
        fields = ("username", "display_name")
        help_texts = {"username": "Letters, digits and @ . + - _ only."}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["display_name"].widget.attrs["autocomplete"] = "nickname"
        self.fields["password1"].help_text = "At least 8 characters, and not an obvious word."
        self.fields["password2"].label = "The same password again"
        self.fields["password2"].help_text = ""

    def clean_display_name(self):
        name = " ".join(self.cleaned_data["display_name"].split())
        if not name.isprintable():
            raise forms.ValidationError("A name is made of letters that can be seen.")
        return name

    def save(self, commit=True):
        self.instance.color = random.choice(User.Color.values)  # noqa: S311 - a colour, no secret
        return super().save(commit)
