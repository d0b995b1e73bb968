"""Where staff say which words no comment may have, and take comments away."""

from django.contrib import admin

from danmaku.models import Comment, ForbiddenWord

__all__ = ["CommentAdmin", "ForbiddenWordAdmin"]


@admin.register(ForbiddenWord)
class ForbiddenWordAdmin(admin.ModelAdmin):
    search_fields = ("word",)


@admin.register(Comment)
class CommentAdmin(admin.ModelAdmin):
    list_display = ("text", "author", "second", "sent_at")
    list_select_related = ("author",)
    list_filter = ("second",)
    search_fields = ("text", "author__username")

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False
