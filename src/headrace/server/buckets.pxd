# The types with which Cython compiles buckets.py.

cdef class TokenBucket:
    cdef public double _burst_s
    cdef public double _each_s
    cdef public double full_at


cdef class Buckets:
    cdef public double _burst_s
    cdef public double _each_s
    cdef public dict _full_at
    cdef public Py_ssize_t _most

    cpdef double take(self, object key, double now) except -1
    cpdef _forget(self, double now)


cdef class Places:
    cdef public object _limit
    cdef public dict _taken

    cpdef bint enter(self, object key) except -1
    cpdef leave(self, object key)
