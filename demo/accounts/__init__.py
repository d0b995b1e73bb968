"""Accounts of the demo site: who is who, and the pages to log in and out."""
