# The types with which Cython compiles ending.py.

from headrace.server.runtime cimport Runtime


cdef class Ending:
    cdef public object _heard_all
    cdef public bint _lingering
    cdef public bint _reading_paused
    cdef public Runtime _runtime
    cdef public object _transport
    cdef public object _unwritten_bytes
    cdef public object _write_by
    cdef public object tick
