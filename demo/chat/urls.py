from django.urls import path

from chat import views

urlpatterns = [
    path("", views.rooms, name="rooms"),
    path("new-room/", views.new_room, name="new_room"),
    path("rooms/<slug:slug>/", views.room, name="room"),
]
