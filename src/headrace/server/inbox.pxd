# The types with which Cython compiles inbox.py.

cdef class Inbox:
    cdef public bint _asyncio_future_blocking
    cdef public tuple _cancelled
    cdef public object _context
    cdef public list _events
    cdef public bint _noted
    cdef public object _wake
    cdef public object turn

    cpdef Inbox block(self)
    cpdef check_single_reader(self)
    cpdef note(self)
    cpdef resume(self)


cdef class _Stirred:
    cdef public Inbox _inbox
