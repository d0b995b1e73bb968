"""The operations page: what a running server does, live, in Django's admin.

Rules of this package:

- Who may see the page may open its socket, and nobody else; both ask the same object, the
  ``OperationsAdmin`` of the admin site, and the socket asks it again while it lives.
- What the page shows was computed once for all who watch; while nobody watches, nothing is.
- Nothing is loaded from elsewhere, and nothing is inline: a strict policy lets the page through.
"""
