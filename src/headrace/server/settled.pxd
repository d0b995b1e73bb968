# The types with which Cython compiles settled.py.

cdef class Settled:
    cdef public object _collect
    cdef public object _freeze
    cdef public Py_ssize_t _last
    cdef public Py_ssize_t _most
    cdef public object _unfreeze
    cdef public Py_ssize_t fresh
    cdef public Py_ssize_t frozen

    cpdef opened(self, Py_ssize_t number, Py_ssize_t newest)
    cpdef gone(self, Py_ssize_t number, Py_ssize_t newest)
