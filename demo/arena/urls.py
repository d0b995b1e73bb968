from django.urls import path

from arena import views

urlpatterns = [path("", views.arena, name="arena")]
