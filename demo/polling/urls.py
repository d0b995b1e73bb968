from django.urls import path

from polling import views

urlpatterns = [path("", views.page, name="polling")]
