"""What one may write on the board."""

from django import forms
from django.utils.translation import gettext_lazy as _

from notifications.models import Comment, Post

__all__ = ["CommentForm", "PostForm"]


class PostForm(forms.ModelForm):
    class Meta:
        model = Post
        fields = ("title", "text")
        labels = {"title": _("Title"), "text": _("Text")}
        widgets = {"text": forms.Textarea({"rows": 4})}


class CommentForm(forms.ModelForm):
    class Meta:
        model = Comment
        fields = ("text",)
        labels = {"text": _("Your comment")}
        widgets = {"text": forms.Textarea({"rows": 3})}
