from django.urls import path

from chat import views

urlpatterns = [
    path("", views.rooms, name="rooms"),
    path("new-room/", views.new_room, name="new_room"),
    path("new-conversation/", views.new_conversation, name="new_conversation"),
    path("with/<int:user_id>/", views.converse, name="converse"),
    path("rooms/<slug:slug>/", views.room, name="room"),
    path("rooms/<slug:slug>/images/", views.upload, name="upload"),
    path("rooms/<slug:slug>/images/<int:number>/", views.image, name="image"),
]
