from django.contrib.auth.views import LogoutView
from django.urls import path

from accounts import views

urlpatterns = [
    path("login/", views.LoginView.as_view(), name="login"),
    path("login/as/<str:username>/", views.LoginAsView.as_view(), name="login_as"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("signup/", views.sign_up, name="sign_up"),
]
