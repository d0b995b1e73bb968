from django.urls import path

from polling import views

urlpatterns = [
    path("", views.page, name="polling"),
    path("poll/", views.poll, name="polling_poll"),
    path("wait/", views.wait, name="polling_wait"),
]
