# The types with which Cython compiles limits.py.

from headrace.server.buckets cimport Buckets, Places, TokenBucket


cdef class Refusals:
    cdef public object _log
    cdef public object count


cdef class Pace:
    cdef public double burst_s
    cdef public double byte_s
    cdef public double idle_s
    cdef public double message_s
    cdef public double patience_s


cdef class Gate:
    cdef public TokenBucket _handshakes
    cdef public Py_ssize_t _last_descriptor
    cdef public Buckets _of_address
    cdef public Places _places
    cdef public object _shared
    cdef public double _short_until
    cdef public Py_ssize_t most
    cdef public Py_ssize_t most_refusing
    cdef public Py_ssize_t refusing

    cpdef connect(self, Py_ssize_t connections, double now)
    cpdef look(self, Py_ssize_t descriptor, double now)
    cpdef enter(self, object host)
    cpdef leave(self, object key)
    cpdef handshake(self, object host, double now)
