# The types with which Cython compiles _http1_grammar.py: it has no class of its own to type.
