"""``python3 -m chaos``: break things, and reconcile what was sent with what arrived."""
