"""``manage.py seed``: somebody to be, and what each application has to begin with."""

from importlib import import_module
from importlib.util import find_spec

from django.apps import apps
from django.contrib.auth.models import Permission
from django.core.management.base import BaseCommand
from django.db import transaction

from accounts.models import User

PEOPLE = (
    # user name, shown name, colour
    ("maya", "Maya Okafor", User.Color.TEAL),
    ("jonas", "Jonas Lindqvist", User.Color.RUST),
    ("priya", "Priya Raman", User.Color.VIOLET),
    ("tomas", "Tomás Rivera", User.Color.BLUE),
    ("wen", "Wen Li", User.Color.ROSE),
    ("edith", "Edith Novák", User.Color.MOSS),
)

# Who may open /admin/, where the server can be watched and its connections closed.
STAFF = "edith"


class Command(BaseCommand):
    """Fill what isn't there; what is there stays as it is.

    An application that has something to begin with has a module ``seed`` with a function
    ``seed(people)``, which takes the accounts by user name and returns what it has, in words.
    """

    help = "Create the accounts that are open to all, and what there is to see."

    @transaction.atomic
    def handle(self, *args, **options):
        people = dict(map(self.account, PEOPLE))
        seeds = [
            import_module(f"{config.name}.seed").seed
            for config in apps.get_app_configs()
            if find_spec(f"{config.name}.seed")
        ]
        told = [f"{User.objects.count()} accounts", *(seed(people) for seed in seeds)]
        self.stdout.write(", ".join(told))

    def account(self, person):
        username, display_name, color = person
        user, created = User.objects.get_or_create(
            username=username,
            defaults={"display_name": display_name, "color": color, "open_to_all": True},
        )
        if created:
            user.set_unusable_password()
            user.is_staff = username == STAFF
            user.save()
            if user.is_staff:
                user.user_permissions.add(Permission.objects.get(codename="close_connection"))
        return username, user
