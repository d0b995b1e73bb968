"""Django's management commands: ``runserver`` and ``runworker``."""
