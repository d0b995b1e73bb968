"""Create the sites' database with one user who is logged in; print the session's cookie."""

import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
django.setup()

from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.http import HttpRequest

call_command("migrate", verbosity=0)
request = HttpRequest()
request.session = SessionStore()
login(request, User.objects.create_user("ada"), "django.contrib.auth.backends.ModelBackend")
request.session.save()
print(f"{settings.SESSION_COOKIE_NAME}={request.session.session_key}")
