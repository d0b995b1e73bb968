# The types with which Cython compiles http.py.

from headrace.server.inbox cimport Inbox
from headrace.server.runtime cimport Runtime


cdef class Exchange(Inbox):
    cdef public bint _answered
    cdef public double _began
    cdef public bint _begun
    cdef public bint _body_complete
    cdef public object _client
    cdef public object _connection
    cdef public object _engine
    cdef public bint _goes_on
    cdef public bint _gone
    cdef public object _outbox
    cdef public object _request
    cdef public Runtime _runtime
    cdef public bint _started
    cdef public object _status
    cdef public object _task
    cdef public object _traffic
    cdef public object _trailers
    cdef public bint active
    cdef public Py_ssize_t waiting_bytes

    cpdef _start_response(self, dict message)
    cpdef _continue_response(self, dict message)
    cpdef _complete(self, object status)
    cpdef _log(self, object status)
