# The types with which Cython compiles _frames.py, and the loop that Python has no words for.

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline bytes masked_copy(
    bytes data, Py_ssize_t start, Py_ssize_t end, bytes mask, Py_ssize_t at
):
    if not (0 <= start <= end <= len(data) and 0 <= at <= len(mask) - 4):
        raise IndexError("unmask reaches beyond its bytes")
    cdef Py_ssize_t length = end - start
    cdef bytes plain = PyBytes_FromStringAndSize(NULL, length)
    cdef char* target = plain
    cdef const char* source = <const char*> data + start
    cdef const char* key = <const char*> mask + at
    cdef uint32_t key_4
    cdef uint64_t key_8, word
    cdef Py_ssize_t i = 0
    memcpy(&key_4, key, 4)
    key_8 = (<uint64_t> key_4 << 32) | key_4
    # Eight bytes at a time, through memcpy because neither side is aligned.
    while length - i >= 8:
        memcpy(&word, source + i, 8)
        word ^= key_8
        memcpy(target + i, &word, 8)
        i += 8
    while i < length:
        target[i] = source[i] ^ key[i & 3]
        i += 1
    return plain


cpdef bytes unmask(bytes data, Py_ssize_t start, Py_ssize_t end, bytes mask, Py_ssize_t at=*)

@cython.locals(length=Py_ssize_t)
cpdef bytes encode_frame(int head, bytes payload)

@cython.locals(available=Py_ssize_t, small=int, start=Py_ssize_t)
cpdef read_header(bytes data, Py_ssize_t position)

@cython.locals(
    size=Py_ssize_t, head=int, length=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t, payload=bytes
)
cpdef Py_ssize_t read_messages(
    bytes data, Py_ssize_t position, Py_ssize_t limit_bytes, list events, Py_ssize_t room
) except -1
