# The types with which Cython compiles wheel.py.

cdef class Wheel:
    cdef public dict _buckets
    cdef public object _clock
    cdef public object _loop
    cdef public object _next
    cdef public double _tick_s
    cdef public object _timer

    cpdef schedule(self, object timed, object deadline)
    cpdef postpone(self, object timed, object deadline)
    cpdef cancel(self, object timed)
