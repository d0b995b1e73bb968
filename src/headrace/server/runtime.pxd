# The types with which Cython compiles runtime.py.

from headrace.server.counters cimport Counters
from headrace.server.limits cimport Gate, Pace
from headrace.server.settled cimport Settled
from headrace.server.turn cimport Turn
from headrace.server.wheel cimport Wheel


cdef class Runtime:
    cdef public long long _date_second
    cdef public bint _makes_tasks
    cdef public dict addresses
    cdef public object app
    cdef public object config
    cdef public set connections
    cdef public object context
    cdef public Counters counters
    cdef public list default_headers
    cdef public bint draining
    cdef public object exited
    cdef public object farewell
    cdef public Gate gate
    cdef public double idle_until
    cdef public object log
    cdef public object loop
    cdef public object numbered
    cdef public Pace pace
    cdef public object quiet
    cdef public object refusals
    cdef public bint serving
    cdef public Settled settled
    cdef public double started
    cdef public object state
    cdef public set tasks
    cdef public object timeouts
    cdef public Turn turn
    cdef public Wheel wheel
    cdef public object worker

    cpdef ended(self, object task)
    cpdef number(self)
    cpdef enter(self, object connection)
    cpdef leave(self, object connection)
    cpdef hand_over(self, object connection)
    cpdef refresh_date(self)
