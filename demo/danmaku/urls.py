from django.urls import path

from danmaku import views

urlpatterns = [path("", views.film, name="danmaku")]
