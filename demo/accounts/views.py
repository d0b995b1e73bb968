"""Log in (by a click, or with a password), sign up, log out."""

from django.contrib.auth import login, logout
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from accounts.forms import SignUpForm
from accounts.models import User

__all__ = ["LoginView", "login_as", "sign_up"]

BACKEND = "django.contrib.auth.backends.ModelBackend"


class LoginView(auth_views.LoginView):
    """The front door: the accounts that are open to all, and a form for everyone else."""

    template_name = "accounts/login.html"
    redirect_authenticated_user = True
    extra_context = {"open_accounts": User.objects.filter(open_to_all=True).order_by("pk")}


class ChosenDestination(auth_views.RedirectURLMixin):
    """Where the page that sent somebody to log in wants them back; never another site."""

    next_page = "rooms"

    def __init__(self, request):
        self.request = request


@login_not_required
@require_POST
def login_as(request, username):
    """Log in by a click, as one of the accounts that have no password."""
    user = get_object_or_404(User, username=username, open_to_all=True, is_active=True)
    if request.user.is_authenticated:
        logout(request)  # ends the old user's WebSockets too: see chat.signals
    login(request, user, backend=BACKEND)
    return redirect(ChosenDestination(request).get_success_url())


@login_not_required
@sensitive_post_parameters("password1", "password2")
def sign_up(request):
    """Make an account, and log in with it."""
    if request.user.is_authenticated:
        return redirect("rooms")
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        login(request, form.save(), backend=BACKEND)
        return redirect("rooms")
    return render(request, "accounts/sign_up.html", {"form": form})
