# The types with which Cython compiles handshake.py: it has no class of its own to type.
