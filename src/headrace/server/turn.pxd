# The types with which Cython compiles turn.py.

from headrace.server.counters cimport Counters


cdef class Turn:
    cdef public object _clock
    cdef public object _later
    cdef public int _owed
    cdef public list _resumables
    cdef public bint _scheduled
    cdef public object _until
    cdef public list _writables
    cdef public Counters counters
    cdef public object loop

    cpdef resume(self, object resumable)
    cpdef write(self, object writable)
    cpdef later(self, object work)
    cpdef bint has_time(self)


cdef class Share:
    cdef public object _pieces
    cdef public Turn _turn

    cpdef later(self, object work)
