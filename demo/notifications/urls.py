from django.urls import path

from notifications import views

urlpatterns = [
    path("", views.board, name="board"),
    path("posts/<int:number>/", views.post, name="board_post"),
    path("posts/<int:number>/follow/", views.follow, name="board_follow"),
    path("inbox/", views.inbox, name="notifications"),
    path("inbox/<int:number>/", views.notification, name="notification"),
]
