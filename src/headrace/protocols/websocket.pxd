# The types with which Cython compiles websocket.py.

cdef class _Message:
    cdef public double began
    cdef public tuple decoders
    cdef public bint final
    cdef public Py_ssize_t fragments
    cdef public object left
    cdef public bytes mask
    cdef public object payload
    cdef public Py_ssize_t piece_bytes
    cdef public bytes tail
    cdef public bint text
    cdef public object wire_bytes


cdef class WebSocketEngine:
    cdef public double _asked
    cdef public object _buffer
    cdef public tuple _extensions
    cdef public object _failure
    cdef public double _heard
    cdef public object _limits
    cdef public _Message _message
    cdef public bytes _output
    cdef public object _plain_bytes
    cdef public bytes _pongs
    cdef public Py_ssize_t _position
    cdef public bint _ready
    cdef public object _timeouts
    cdef public object close_code
    cdef public object close_reason
    cdef public Py_ssize_t fragments
    cdef public bint has_unread
    cdef public object state
    cdef public object wire

    cpdef data_to_send(self)
    cpdef deadline(self)
    cpdef _ping_due(self)
    cpdef _step(self, object step)
    cpdef _forget(self)
