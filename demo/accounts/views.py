"""Log in (by a click, or with a password), sign up, log out."""

from django.contrib.auth import login, logout
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.debug import sensitive_post_parameters

from accounts.forms import LoginForm, SignUpForm
from accounts.models import User

__all__ = ["LoginAsView", "LoginView", "sign_up"]

BACKEND = "django.contrib.auth.backends.ModelBackend"


class LoginView(auth_views.LoginView):
    """The front door: the accounts that are open to all, and a form for everyone else."""

    template_name = "accounts/login.html"
    authentication_form = LoginForm
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs):
        open_accounts = User.objects.filter(open_to_all=True, is_active=True).order_by("pk")
        return super().get_context_data(open_accounts=open_accounts, **kwargs)


@method_decorator(login_not_required, name="dispatch")
class LoginAsView(auth_views.RedirectURLMixin, View):
    """Log in by a click, as one of the accounts that have no password."""

    http_method_names = ("post",)
    next_page = "start"

    def post(self, request, username):
        user = get_object_or_404(User, username=username, open_to_all=True, is_active=True)
        if request.user.is_authenticated:
            logout(request)  # ends the old user's WebSockets too: see chat.signals
        login(request, user, backend=BACKEND)
        return redirect(self.get_success_url())


@login_not_required
@sensitive_post_parameters("password1", "password2")
def sign_up(request):
    """Make an account, and log in with it."""
    if request.user.is_authenticated:
        return redirect("start")
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        login(request, form.save(), backend=BACKEND)
        return redirect("start")
    return render(request, "accounts/sign_up.html", {"form": form})
