# The types with which Cython compiles websocket.py.

from headrace.protocols.websocket cimport WebSocketEngine
from headrace.server.inbox cimport Inbox
from headrace.server.outbox cimport Outbox
from headrace.server.runtime cimport Runtime


cdef class WebSocketStream(Inbox):
    cdef public bint _aside
    cdef public object _client
    cdef public double _due
    cdef public list _early
    cdef public bint _goes_on
    cdef public object _opening
    cdef public object _pressure
    cdef public bint _reading_paused
    cdef public Runtime _runtime
    cdef public object _task
    cdef public object _wire
    cdef public object bounds
    cdef public WebSocketEngine engine
    cdef public object number
    cdef public Outbox outbox
    cdef public object phase
    cdef public object place
    cdef public long long received_bytes
    cdef public object tick
    cdef public object transport

    cpdef _take(self, list events)
    cpdef _closed_by_peer(self, object event)
    cpdef _pause_reading(self)
    cpdef _resume_reading(self)
    cpdef _go_on_soon(self)
    cpdef bint _full_of_messages(self) except -1
    cpdef _accept(self, object message)
