# The types with which Cython compiles _http1_grammar.py: it has no class of its own to type.

cpdef tuple _take_key(bytes section)
cpdef bint _is_common(object line) except -1
