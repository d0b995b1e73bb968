"""The board in the admin: a comment that is added here notifies as any other."""

from django.contrib import admin

from notifications.models import Comment, Post


@admin.register(Post)
class PostAdmin(admin.ModelAdmin):
    list_display = ("title", "author", "created_at")
    search_fields = ("title", "text")


@admin.register(Comment)
class CommentAdmin(admin.ModelAdmin):
    list_display = ("__str__", "post", "author", "created_at")
    autocomplete_fields = ("post",)
