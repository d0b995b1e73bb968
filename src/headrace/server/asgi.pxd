# The types with which Cython compiles asgi.py: it has no class of its own to type.
