"""``headrace top``: a running server, live in a terminal, or once for a script."""
