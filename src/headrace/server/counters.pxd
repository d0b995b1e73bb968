# The types with which Cython compiles counters.py.

cdef class Counters:
    cdef public long long accepted
    cdef public long long application_errors
    cdef public long long bytes_received
    cdef public long long bytes_sent
    cdef public object closes
    cdef public long long connections
    cdef public object drops
    cdef public object durations
    cdef public long long messages_received
    cdef public long long messages_sent
    cdef public dict open
    cdef public object refusals
    cdef public long long requests
    cdef public long long slow_clients
    cdef public list statuses
    cdef public long long tls_connections
    cdef public long long websockets
