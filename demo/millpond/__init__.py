"""Millpond, the demo site of Headrace: the Django project."""
