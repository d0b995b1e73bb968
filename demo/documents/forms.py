"""A new document, and whom it is shared with."""

from django import forms
from django.contrib.auth import get_user_model
from django.utils.translation import gettext_lazy as _

from documents.models import Document, Role

__all__ = ["DocumentForm", "EveryoneForm", "ShareForm"]


class DocumentForm(forms.ModelForm):
    class Meta:
        model = Document
        fields = ("title",)
        labels = {"title": _("Title")}

    def clean_title(self):
        title = " ".join(self.cleaned_data["title"].split())
        if not title.isprintable():
            raise forms.ValidationError(_("A title is made of letters that can be seen."))
        return title


class ShareForm(forms.Form):
    """Somebody by their user name, and what they may do."""

    username = forms.CharField(
        label=_("User name"), max_length=150, widget=forms.TextInput({"autocomplete": "off"})
    )
    role = forms.ChoiceField(label=_("They"), choices=Role)

    def __init__(self, *args, document, **kwargs):
        super().__init__(*args, **kwargs)
        self.document = document

    def clean_username(self):
        user = get_user_model().objects.filter(username=self.cleaned_data["username"]).first()
        if user is None:
            raise forms.ValidationError(_("Nobody here has this user name."))
        if user == self.document.owner:
            raise forms.ValidationError(_("It is their own document."))
        return user


class EveryoneForm(forms.ModelForm):
    everyone = forms.ChoiceField(
        label=_("Everyone else"),
        choices=[("", _("sees nothing of it")), *Role.choices],
        required=False,
    )

    class Meta:
        model = Document
        fields = ("everyone",)
