# The types with which Cython compiles outbox.py.

cdef class Outbox:
    cdef public bytes _control
    cdef public bytes _end
    cdef public list _messages
    cdef public bint _noted
    cdef public bint _plain
    cdef public Py_ssize_t _room_bytes
    cdef public list _waiters
    cdef public Py_ssize_t limit_bytes
    cdef public object owner
    cdef public bint paused
    cdef public object policy
    cdef public long long sent_bytes
    cdef public object transport
    cdef public object turn
    cdef public Py_ssize_t waiting_bytes

    cpdef push(self, object message)
    cpdef write(self, object data)
    cpdef flush(self)
    cpdef _write(self, object data, Py_ssize_t messages)
    cpdef release(self)
    cpdef Py_ssize_t drop_messages(self) except -1
    cpdef _note(self)
    cpdef _bound(self)
