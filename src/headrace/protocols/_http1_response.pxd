# The types with which Cython compiles _http1_response.py.

cdef class Response:
    cdef public bytes _block
    cdef public bint _chunked
    cdef public bint _http10
    cdef public object _length
    cdef public object _method
    cdef public list _options
    cdef public object _sent
    cdef public object _status
    cdef public bint _trailers_follow
    cdef public bint needs_close
    cdef public object stage
    cdef public bint wants_close
