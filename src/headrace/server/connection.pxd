# The types with which Cython compiles connection.py.

from headrace.protocols.http1 cimport Http1Engine
from headrace.server.ending cimport Ending
from headrace.server.outbox cimport Outbox
from headrace.server.runtime cimport Runtime


cdef class Connection(Ending):
    cdef public object _client
    cdef public Http1Engine _engine
    cdef public object _exchange
    cdef public bint _goes_on
    cdef public object _gone_by
    cdef public bint _is_new
    cdef public Outbox _outbox
    cdef public object _place
    cdef public bint _refused
    cdef public object _request_place
    cdef public object _server
    cdef public object number
    cdef public long long received_bytes

    cpdef _take(self, list events)
    cpdef after(self)
    cpdef finished(self)
    cpdef _leave_request(self)
    cpdef _deadline(self)
    cpdef _begin(self, object request)
    cpdef _enter(self)
    cpdef _enter_request(self, object client)
    cpdef _holds_back(self, object client)


cdef class _Http1Opening:
    cdef public object _client
    cdef public Py_ssize_t _early_bytes
    cdef public Http1Engine _engine
    cdef public object _handshake
    cdef public Outbox _outbox
    cdef public object _request
    cdef public Runtime _runtime
    cdef public object _status
    cdef public object number
