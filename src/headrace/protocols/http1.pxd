# The types with which Cython compiles http1.py.

cdef class Http1Engine:
    cdef public Py_ssize_t _at
    cdef public bint _blank_seen
    cdef public object _buffer
    cdef public object _clock
    cdef public object _default_headers
    cdef public bint _eof
    cdef public Py_ssize_t _extension_bytes
    cdef public object _first_line
    cdef public bint _fresh
    cdef public bint _keep_alive
    cdef public object _left
    cdef public object _limits
    cdef public object _line
    cdef public list _output
    cdef public object _part
    cdef public long long _passed
    cdef public bint _paused
    cdef public double _progress
    cdef public object _received
    cdef public long long _request_at
    cdef public object _response
    cdef public Py_ssize_t _scanned
    cdef public object _trailers
    cdef public bint _wants_continue
    cdef public bint has_unread
    cdef public bint must_close
    cdef public object state

    cpdef _forget_request(self)
    cpdef _compact(self)
    cpdef bint _read_head(self, double now, list events) except -1
    cpdef bint _read_small_head(self, Py_ssize_t end, double now, list events) except -1
    cpdef _begin_request(self, object line, list headers, object framing, double now, list events)
    cpdef _check_body(self, object size)
    cpdef bytes _take(self)
    cpdef bint _read_body(self, double now, list events) except -1
    cpdef bint _read_chunks(self, double now, list events) except -1
    cpdef bint _read_chunk(self, list parts) except -1
    cpdef data_to_send(self)
    cpdef bint _has_answered(self) except -1
    cpdef _request_line(self, str what)
    cpdef bint _rest_is_here(self) except -1
    cpdef _finish(self)
    cpdef _drop_input(self)
    cpdef _move(self, object state)
